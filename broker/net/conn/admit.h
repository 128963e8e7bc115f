/* SPDX-License-Identifier: Apache-2.0
 *
 * Admission: whether a connection may do what it asks for. The calls of door.h ask here before
 * anything reaches the engine or the store, and nothing else does; what arrives there unasked meets
 * an invariant. The rule stands in struct net_config; without one everything is allowed.
 *
 * A command is asked for with the permission of its row in commands.def, for each object in its
 * body and each operation of a transaction; a read with the one of its row in queries.def.
 */
#ifndef SLUICE_NET_ADMIT_H
#define SLUICE_NET_ADMIT_H

#include "broker/core/command.h"
#include "sluice.pb-c.h"
#include "sluice/error.h"
#include "sluice/types.h"

struct conn;

/* What a rule is asked. */
struct admission_question {
	uint32_t gateway;	/* 0: not entered */
	const char *permission; /* "publish" */
	/* A subject or a name; empty: the operation has no object, or it is known by its number
	 * only. */
	struct sluice_slice on;
	uint64_t number;
};
struct admission {
	/* 0, or DENIED. Any thread; must not block. */
	int (*may)(void *user, const struct admission_question *question);
	void *user;
};

/* 0, or DENIED. After 0 the connection may make the one call that follows. */
int admit_command(struct conn *conn, const struct command *command) SLUICE_MUST_USE;
int admit_read(struct conn *conn, const Sluice__Request *request) SLUICE_MUST_USE;
int admit(struct conn *conn, const char *permission, struct sluice_slice on,
	  uint64_t number) SLUICE_MUST_USE;
/* Whether what was admitted before still is. */
bool admit_again(struct conn *conn, const char *permission, struct sluice_slice on);
/* What reaches the engine or the store: the admission before it is used up. */
void admitted(struct conn *conn, const char *what);

#endif
