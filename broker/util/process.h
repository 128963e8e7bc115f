/* SPDX-License-Identifier: Apache-2.0
 *
 * What a daemon inherits from its starter, and what it leaves to its children. Called from main()
 * only, in this order:
 *
 *     process_inherit()      first of all
 *     ... arguments, configuration ...
 *     process_isolate()      when it is going to serve
 *     process_files_raise()  a program that holds many connections
 *     process_stop_fd()      last, before other threads begin
 *
 * Everything here is for one process and its main thread before any other thread runs; nothing
 * blocks unless it says so.
 */
#ifndef SLUICE_BROKER_UTIL_PROCESS_H
#define SLUICE_BROKER_UTIL_PROCESS_H

/* The soft limit of open files at the start of the process, in decimal. process_files_raise() sets
 * it in the environment for children that are not made by fork() (posix_spawn, vfork). Such a
 * child, or a program that it executes, restores the limit and removes the variable before it
 * executes a job. Absent: the limit was not changed. */
#define PROCESS_FILES_ENV "SLUICE_NOFILE_SOFT"

/*
 * Brings what was inherited into a known state:
 * - descriptors 0 to 2 that are closed are opened on /dev/null, so that no file of ours gets their
 *   numbers; all others become close-on-exec;
 * - no signal is ignored, but for SIGPIPE, SIGXFSZ (a write then fails with EFBIG) and SIGTTOU (a
 *   background process may write to its terminal);
 * - SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are blocked, until process_stop_fd() handles them,
 *   and no others;
 * - the variables that a service manager gave to this one process (NOTIFY_SOCKET, LISTEN_FDS,
 *   CREDENTIALS_DIRECTORY ...) are removed: they are not for its children;
 * - orphans of children are not re-parented to this process (PR_SET_CHILD_SUBREAPER).
 */
void process_inherit(void);

/*
 * Closes what is open above descriptor 2, but for sockets that a service manager passed (LISTEN_FDS
 * for this process), which stay close-on-exec. After arguments and configuration were read: they
 * may name /dev/fd/N.
 *
 * As process 1 of a container it forks: process 1 then reaps all orphans, forwards SIGTERM, SIGINT,
 * SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2, and ends with the exit code of the child, or 128 and the
 * number of the signal that ended it. The call returns in the child, whose own children nobody else
 * waits for. If there can be no child, it returns in process 1 with -1 and errno; orphans then stay
 * zombies.
 */
int process_isolate(void) __attribute__((warn_unused_result));

/* Raises the soft limit of open files to the hard one for this process. A child made by fork() has
 * the old limit again; others use PROCESS_FILES_ENV. */
void process_files_raise(void);

/* Starts the thread that handles SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2. Returns a descriptor
 * (close-on-exec, owned by this file) that becomes readable with the first SIGTERM or SIGINT and
 * stays so, or -1 with errno. The other signals are logged (process.signal) and change nothing:
 * configuration cannot be reloaded yet. */
int process_stop_fd(void) __attribute__((warn_unused_result));

/* Blocks until descriptor fd of process_stop_fd() is readable. */
void process_stop_wait(int fd);

#endif
