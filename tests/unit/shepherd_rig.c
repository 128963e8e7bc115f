/* SPDX-License-Identifier: Apache-2.0
 * See shepherd_rig.h. */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plugins/local/attempt/proc.h"
#include "shepherd_rig.h"

enum { WAIT_MS_MAX = 20000 };
char spool[RIG_SPOOL_BYTES];
char dir[ATTEMPT_PATH_MAX];

void setup(void)
{
	(void)snprintf(spool, sizeof(spool), "/tmp/sluice-test-shepherd-XXXXXX");
	cr_assert_not_null(mkdtemp(spool));
	cr_assert_eq(attempt_dir(spool, "job/1", 1, "0", true, dir), 0);
}

void teardown(void)
{
	char *argv[] = {(char[]){"rm"}, (char[]){"-rf"}, spool, NULL};
	pid_t pid;

	if (posix_spawnp(&pid, "rm", NULL, NULL, argv, environ) == 0)
		(void)waitpid(pid, NULL, 0);
}

/* ---- helpers ---- */

void pause_ms(long ms)
{
	(void)nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

void put(const char *name, const char *text)
{
	char path[ATTEMPT_PATH_MAX + 32];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	cr_assert_not_null(file, "%s", path);
	cr_assert_geq(fputs(text, file), 0);
	cr_assert_eq(fclose(file), 0);
}

/* What a file of the attempt holds; "" when there is none. Static. */
const char *get(const char *name)
{
	static char text[4096];
	char path[ATTEMPT_PATH_MAX + 32];
	FILE *file;
	size_t len = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "r");
	if (file != NULL) {
		len = fread(text, 1, sizeof(text) - 1, file);
		(void)fclose(file);
	}
	text[len] = 0;
	return text;
}

void job(const char *script)
{
	char text[2048];

	(void)snprintf(text, sizeof(text),
		       "{\"argv\": [\"/bin/sh\", \"-c\", \"%s\"], \"cwd\": \"%s\"}", script, dir);
	cr_assert_eq(attempt_write(dir, "job.json", text, strlen(text)), 0);
}

/* Starts a shepherd as the scheduler does, with up to two options (NULL: none). Returns the
 * starter's end of the pipe. */
int shepherd_start_with(const char *first, const char *second)
{
	char *argv[] = {(char[]){SHEPHERD},	   dir, (char[]){"3"}, (char *)(uintptr_t)first,
			(char *)(uintptr_t)second, NULL};
	posix_spawn_file_actions_t actions;
	int pipe_fds[2];
	pid_t pid;

	cr_assert_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
	cr_assert_eq(posix_spawn_file_actions_init(&actions), 0);
	cr_assert_eq(posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 3), 0);
	cr_assert_eq(posix_spawn(&pid, SHEPHERD, &actions, NULL, argv, environ), 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(pipe_fds[1]);
	(void)waitpid(pid, NULL, 0);
	return pipe_fds[0];
}

int shepherd_start(void)
{
	return shepherd_start_with(NULL, NULL);
}

/* Everything that it writes until it closes the pipe; static. Closes fd. */
const char *said(int fd)
{
	static char text[512];
	ssize_t got;
	size_t len = 0;

	while ((got = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)got;
	text[len] = 0;
	(void)close(fd);
	return text;
}

struct attempt_view look(void)
{
	struct attempt_view view;

	cr_assert_eq(attempt_inspect(dir, &view), 0);
	return view;
}

void wait_gone(pid_t pid)
{
	for (int ms = 0; ms < WAIT_MS_MAX; ms += 2) {
		if (process_start_time(pid) == 0)
			return;
		pause_ms(2);
	}
	cr_assert_fail("process %d still exists", (int)pid);
}

struct attempt_view wait_for(enum attempt_state state)
{
	for (int ms = 0; ms < WAIT_MS_MAX; ms += 2) {
		struct attempt_view view = look();

		if (view.state == state) {
			if (state == ATTEMPT_ENDED)
				wait_gone(view.shepherd);
			return view;
		}
		pause_ms(2);
	}
	cr_assert_fail("state %d was not seen in %d ms; it is %d", (int)state, WAIT_MS_MAX,
		       (int)look().state);
	return look();
}

void wait_for_text(const char *name, const char *part)
{
	for (int ms = 0; ms < WAIT_MS_MAX; ms += 2) {
		if (strstr(get(name), part) != NULL)
			return;
		pause_ms(2);
	}
	cr_assert_fail("'%s' was not seen in %s: '%s'", part, name, get(name));
}

void run_to_end(const char *script)
{
	job(script);
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	(void)wait_for(ATTEMPT_ENDED);
}
