/* SPDX-License-Identifier: Apache-2.0
 *
 * Processes of this machine as /proc shows them: identity (pid and start time), descendants, and
 * what a job's process must not inherit from the service that started it.
 *
 * All functions may be called from any thread, keep no state and block only for local files.
 */
#ifndef SLUICE_LOCAL_PROC_H
#define SLUICE_LOCAL_PROC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A process's start time (field 22 of /proc/PID/stat, in clock ticks since boot); 0: there is none,
 * or it is a zombie. */
uint64_t process_start_time(pid_t pid);
/* The age of the process, by a clock that cannot be set; 0: there is none, or it is a zombie. */
uint64_t process_age_ms(pid_t pid);
/* This boot, as 16 hex digits and NUL. */
void boot_id(char ret[17]);

enum { LEFTOVERS_MAX = 64, LEFTOVER_NAMES_BYTES = 200 };
struct leftover {
	pid_t pid;
	uint64_t start_time;
	char name[16]; /* the kernel's, made plain: no spaces, no bytes above 126 */
};
/* Living descendants of `root` that are not in the process group `group` (0: of any); at most
 * LEFTOVERS_MAX. A descendant whose parent has ended counts only while `root` is a subreaper.
 * Returns their number. */
size_t leftovers_below(pid_t root, pid_t group, struct leftover ret[LEFTOVERS_MAX]);
/* Living processes whose environment held `mark` ("NAME=VALUE") at their exec; those of other users
 * are not seen. It reads all of /proc. */
size_t leftovers_marked(const char *mark, struct leftover ret[LEFTOVERS_MAX]);
/* SIGKILL to one, if it is still the same process. */
void leftover_kill(const struct leftover *left);
/* "sleep(17),sh(18)", cut at a name; "-" for none. */
void leftovers_names(const struct leftover *left, size_t count, char ret[LEFTOVER_NAMES_BYTES]);

/* Default dispositions for all signals, and none blocked. */
void process_default_signals(void);
/* The soft limit of open files from before the host raised it (plugin.h, SLUICE_NOFILE_SOFT). */
void process_restore_files(void);
/* A negative oom_score_adj is the service's protection; a job starts with 0. */
void process_reset_oom_score(void);

#endif
