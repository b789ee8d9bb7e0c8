# Completions for cmlpack, cmlfs and cmlrun in bash.
_cml() {
  local program=${COMP_WORDS[0]##*/} word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words=
  case $program in
    cmlpack) words='info ls cat extract verify describe diff flatten unflatten' ;;
    cmlfs) words='mount umount' ;;
    cmlrun) words='predict describe bench verify trace compare' ;;
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "$words --help --version" -- "$word"))
    return
  fi
  case $word in
    -*)
      case $program/$command in
        cmlpack/ls) words='--long --recursive --json --data' ;;
        cmlpack/info | cmlpack/verify | cmlpack/diff) words='--json' ;;
        cmlpack/describe) words='--json --text --dot --svg' ;;
        cmlpack/flatten) words='--align --name' ;;
        cmlfs/mount) words='--foreground --debug --options' ;;
        cmlrun/predict) words='--input --output --resize --state --function --method --data --skip-delegates --etdump --etdump-values --passes --cache --threads --max-memory' ;;
        cmlrun/describe) words='--function --method --json --passes' ;;
        cmlrun/bench) words='--threads --max-memory --seconds --input --function --method --data --passes --cache --profile --trace --html --json' ;;
        cmlrun/verify) words='--rtol --atol --data --threads --max-memory --json' ;;
        cmlrun/trace) words='--input --nan --method --function --data --passes --threads --max-memory' ;;
        cmlrun/compare) words='--input --snr --all --method --data --threads --max-memory' ;;
        *) words= ;;
      esac
      COMPREPLY=($(compgen -W "$words --help" -- "$word")) ;;
    *)
      if { [ "$program/$command" = cmlpack/cat ] || [ "$program/$command" = cmlpack/ls ]; } && [ "$COMP_CWORD" -eq 3 ]; then
        local IFS=$'\n'
        COMPREPLY=($(compgen -W "$(cmlpack ls -R "${COMP_WORDS[2]}" 2> /dev/null)" -- "$word"))
      else
        COMPREPLY=($(compgen -f -- "$word"))
      fi ;;
  esac
}
complete -o filenames -F _cml cmlpack cmlfs cmlrun
