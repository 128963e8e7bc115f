/* SPDX-License-Identifier: Apache-2.0
 * Listening on a unix socket, and who its peers are. For listen.c. */
#ifndef SLUICE_NET_LISTEN_UNIX_H
#define SLUICE_NET_LISTEN_UNIX_H

#include <stdbool.h>
#include <sys/types.h>

#include "sluice/error.h"

/* The file of a bound socket. */
struct unix_file {
	dev_t device;
	ino_t inode;
};

/* Binds a socket to a path, with mode 0660, in a directory that only this process's user (and root)
 * can write, and that nobody else can replace. A socket file that no process listens on is removed
 * first: the caller holds the store's lock, so it is not one that this broker's other process is
 * about to use. INVAL (path), DENIED (directory), IN_USE, IO; *ret_why says more, until the next
 * call. Changes the umask for a moment: before other threads make files. */
int unix_bind(const char *path, int *ret_fd, struct unix_file *ret_file,
	      const char **ret_why) SLUICE_MUST_USE;
/* Removes the socket's file, if it is still that one. */
void unix_remove(const char *path, const struct unix_file *file);
/* The peer's user is one that this user namespace does not know: several people may have its
 * number.
 */
bool unix_peer_is_unknown(int fd);

#endif
