/* check.h - the C tests' few macros. A test is a function without arguments; RUN prints its name and runs it, a check
 * that fails prints where and what, and the test goes on.  main:  RUN(scopes); RUN(errors); return check_done(); */
#ifndef TIDE_CHECK_H
#define TIDE_CHECK_H
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static unsigned check_passed, check_failed;

/** Counts a check; returns whether it held, so that a failure can print more. */
static inline bool check_count(bool ok, const char *file, int line, const char *what)
{
    if (ok) check_passed++;
    else check_failed++;
    if (!ok) printf("    FAILED %s:%d: %s\n", file, line, what);
    return ok;
}

#define CHECK(condition) check_count((condition), __FILE__, __LINE__, #condition)

#define CHECK_INT(expected, got)                                          \
    do {                                                                  \
        long long want_ = (long long)(expected), got_ = (long long)(got); \
        if (!check_count(want_ == got_, __FILE__, __LINE__, #got))        \
            printf("        expected %lld, got %lld\n", want_, got_);     \
    } while (0)

/** tolerance: absolute; 0 asks for the same value. */
#define CHECK_NEAR(expected, got, tolerance)                                                            \
    do {                                                                                                \
        double want_ = (expected), got_ = (got);                                                        \
        if (!check_count(want_ == got_ || fabs(want_ - got_) <= (tolerance), __FILE__, __LINE__, #got)) \
            printf("        expected %.17g, got %.17g\n", want_, got_);                                 \
    } while (0)

#define CHECK_STR(expected, got)                                                                         \
    do {                                                                                                 \
        const char *want_ = (expected), *got_ = (got);                                                   \
        if (!check_count(got_ && !strcmp(want_, got_), __FILE__, __LINE__, #got))                        \
            printf("        expected \"%s\"\n        got      \"%s\"\n", want_, got_ ? got_ : "(NULL)"); \
    } while (0)

#define RUN(test)              \
    do {                       \
        printf("%s\n", #test); \
        fflush(stdout);        \
        test();                \
    } while (0)

/** Prints the counts; returns main's exit status. */
static inline int check_done(void)
{
    printf("%u passed, %u failed\n", check_passed, check_failed);
    return check_failed != 0;
}

#endif
