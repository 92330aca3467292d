/* SPDX-License-Identifier: GPL-3.0-or-later
 * What is left of temporary files and folders when a program ends, however it does.
 */
#include "driver/temporary.h"
#include "ir/base/base.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    close(fd);
}

/* What each test works in: a folder that is not listed. */
struct fixture {
    char folder[32], listed[64], kept[64];
};

static void start(struct fixture *f)
{
    snprintf(f->folder, sizeof f->folder, "/tmp/mpqc-test.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->listed, sizeof f->listed, "%s/listed", f->folder);
    snprintf(f->kept, sizeof f->kept, "%s/kept", f->folder);
}

/* Nothing but the file `kept` is there. */
static void stop(const struct fixture *f)
{
    assert_false(exists(f->listed));
    assert_int_equal(unlink(f->kept), 0);
    assert_int_equal(rmdir(f->folder), 0);
}

/* In a child: a listed file and folder, a file that has been taken from the list; then the end
 * by a signal, or by exit for 0. */
static int run(const struct fixture *f, int sig)
{
    pid_t child = fork();
    if (child == 0) {
        char inside[2 * MPQC_TEMPORARY_PATH], made[MPQC_TEMPORARY_PATH];
        setenv("TMPDIR", f->folder, 1);
        mpqc_temporary_guard();
        mpqc_temporary(f->kept, true);
        mpqc_temporary(f->listed, true);
        make_file(f->kept);
        make_file(f->listed);
        if (!mpqc_temporary_folder(made) || strncmp(made, f->folder, strlen(f->folder)) != 0)
            _exit(9);
        for (int i = 0; i < 300; i++) { /* more than are read at once */
            snprintf(inside, sizeof inside, "%s/a file with a name that is not short %d", made, i);
            make_file(inside);
        }
        mpqc_temporary(f->kept, false);
        if (sig) raise(sig);
        exit(7);
    }
    int status;
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void signals_leave_nothing(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    for (size_t i = 0; i < MPQC_LEN(signals); i++) {
        struct fixture f;
        start(&f);
        int status = run(&f, signals[i]);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), signals[i]);
        stop(&f);
    }
}

static void exits_leave_nothing(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    int status = run(&f, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    stop(&f);
}

/* As under nohup. */
static void ignored_signals_stay_ignored(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    assert_ptr_not_equal(signal(SIGHUP, SIG_IGN), SIG_ERR);
    int status = run(&f, SIGHUP);
    signal(SIGHUP, SIG_DFL);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    stop(&f);
}

static void long_lists_are_cut(void **state)
{
    (void)state;
    char path[32];
    for (int twice = 0; twice < 2; twice++) {
        for (int i = 0; i < 2 * MPQC_TEMPORARY_MAX; i++) {
            snprintf(path, sizeof path, "/nonexistent/%d", i);
            mpqc_temporary(path, true);
        }
        for (int i = 0; i < 2 * MPQC_TEMPORARY_MAX; i++) {
            snprintf(path, sizeof path, "/nonexistent/%d", i);
            mpqc_temporary(path, false);
        }
    }
}

static void removed_folders_are_gone(void **state)
{
    (void)state;
    char made[MPQC_TEMPORARY_PATH], inside[2 * MPQC_TEMPORARY_PATH];
    assert_true(mpqc_temporary_folder(made));
    snprintf(inside, sizeof inside, "%s/file", made);
    make_file(inside);
    mpqc_temporary_remove(made);
    assert_false(exists(made));
    setenv("TMPDIR", "/nonexistent", 1);
    assert_false(mpqc_temporary_folder(made));
    assert_non_null(strstr(made, "/nonexistent/"));
    unsetenv("TMPDIR");
}

/* ---- files that are written whole or not at all ---- */

static struct {
    char path[128];
    int begins, ends;
} told;

static void tell(const char *path, bool begins)
{
    assert_false(exists(path)); /* not yet; no more */
    if (begins) snprintf(told.path, sizeof told.path, "%s", path);
    else assert_string_equal(path, told.path);
    told.begins += begins;
    told.ends += !begins;
}

static void written_files_are_listed_while_they_are_written(void **state)
{
    (void)state;
    struct fixture f;
    struct mpqc_cx cx;
    struct stat st;
    char nowhere[96];
    start(&f);
    mpqc_cx_init(&cx, NULL);
    cx.temporary = tell;
    memset(&told, 0, sizeof told);
    umask(022);
    assert_int_equal(mpqc_file_write(&cx, f.kept, 0777, "abc", 3), MPQC_OK);
    assert_true(told.begins == 1 && told.ends == 1);
    assert_int_equal(strncmp(told.path, f.kept, strlen(f.kept)), 0);
    assert_int_equal(stat(f.kept, &st), 0);
    assert_true(st.st_size == 3 && (st.st_mode & 0777) == 0755);
    /* a device is written to, not replaced */
    assert_int_equal(mpqc_file_write(&cx, "/dev/null", 0666, "abc", 3), MPQC_OK);
    assert_int_equal(told.begins, 1);
    snprintf(nowhere, sizeof nowhere, "%s/none/file", f.folder);
    assert_int_equal(mpqc_file_write(&cx, nowhere, 0666, "abc", 3), MPQC_IO);
    assert_non_null(strstr(cx.diags[0].message, "cannot be written: No such file"));
    assert_true(told.begins == 2 && told.ends == 2);
    mpqc_cx_release(&cx);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_leave_nothing),
        cmocka_unit_test(exits_leave_nothing),
        cmocka_unit_test(ignored_signals_stay_ignored),
        cmocka_unit_test(long_lists_are_cut),
        cmocka_unit_test(removed_folders_are_gone),
        cmocka_unit_test(written_files_are_listed_while_they_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
