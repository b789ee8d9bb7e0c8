"""Adds up the single tests in meson's logs; prints what was skipped and why, then `N passed, N failed, N skipped`.

A program that died, or ran over its time, counts as one failed test."""
import json
import re
import sys

LINE = re.compile(r"^(not )?ok\b[\s\d]*-?\s*(.*?)(?:\s*#\s*(skip\w*)\b\s*(.*))?$", re.IGNORECASE)


def main():
    passed = failed = 0
    skipped = {}
    for path in sys.argv[1:]:
        for line in open(path, encoding="utf-8"):
            test = json.loads(line)
            found = [m for m in map(LINE.match, (test.get("stdout") or "").splitlines()) if m]
            bad = sum(1 for m in found if m[1])
            skips = [m for m in found if not m[1] and m[3]]
            quiet = [l[6:].strip() for l in (test.get("stdout") or "").splitlines() if l.startswith("# SKIP")]
            for m in skips:
                skipped.setdefault((test["name"], m[2]), m[4])
            for i, why in enumerate(quiet):  # cmocka counted these as passed
                skipped[(test["name"], f"({i + 1})")] = why
            if test["result"] == "SKIP" and not found:
                skipped.setdefault((test["name"], ""), (test.get("stdout") or "").strip()[-200:])
            elif test["result"] not in ("OK", "SKIP", "EXPECTEDFAIL") and not bad:
                bad = 1
            elif not found:
                passed += 1
            passed += max(len(found) - bad - len(skips) - len(quiet), 0)
            failed += bad
    for (name, what), why in sorted(skipped.items()):
        print(f"skipped {name} {what}: {why}".rstrip(": "))
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
    return 1 if failed or not passed else 0


sys.exit(main())
