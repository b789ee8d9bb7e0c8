/* CML_SANITIZED: whether a sanitizer watches memory, which maps terabytes and wants each piece between red zones of its own.
 * gcc and clang say it in different ways. */
#ifndef CML_SANITIZED_H
#define CML_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CML_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define CML_SANITIZED 1
#endif
#endif
#ifndef CML_SANITIZED
#define CML_SANITIZED 0
#endif

#endif
