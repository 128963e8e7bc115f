/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the floor driver's files: floor.c (systems, servers), floor_wire.c (a client of
 * sluice-floor-server), floor_commit.c (LMDB in the harness itself). Contracts are those of
 * ../harness/driver.h.
 */
#ifndef BENCH_DRIVERS_FLOOR_H
#define BENCH_DRIVERS_FLOOR_H

#include "../harness/driver.h"

enum floor_mode { FLOOR_RECORD, FLOOR_SEGMENT, FLOOR_ECHO, FLOOR_COMMIT };

/* Sends a hello and waits for its answer. The descriptor, or -1 after bench_error(). */
int floor_wire_connect(int port, const struct bench_conn_spec *spec);
int floor_wire_open(const struct bench_server *server, const struct bench_conn_spec *spec,
		    struct bench_conn **ret);
void floor_wire_close(struct bench_conn *c);
int floor_wire_send(struct bench_conn *c, const void *bodies);
int floor_wire_poll(struct bench_conn *c, int timeout_us, struct bench_progress *io);
int floor_wire_fd(const struct bench_conn *c);

/* The store in server->dir is opened once for any number of connections; LMDB serialises their
 * commits. */
int floor_commit_open(const struct bench_server *server, const struct bench_conn_spec *spec,
		      struct bench_conn **ret);
void floor_commit_close(struct bench_conn *c);
int floor_commit_send(struct bench_conn *c, const void *bodies);
int floor_commit_poll(struct bench_conn *c, int timeout_us, struct bench_progress *io);

#endif
