/* SPDX-License-Identifier: Apache-2.0
 *
 * For the handlers inside core: the context of one command, and how handlers refuse.
 *
 * A handler validates fully before its first write, or runs under a savepoint (TXN and CLAIM always
 * do). It returns 0, or an environment failure that aborts the batch. A refusal is `return
 * refuse(out, CODE, "text", ...)`, which returns 0 after filling the outcome; the handler must not
 * have written anything then.
 */
#ifndef SLUICE_CORE_BASE_APPLY_H
#define SLUICE_CORE_BASE_APPLY_H

#include "broker/core/base/keys.h"
#include "broker/core/core.h"
#include "protocol/limits.h"

struct apply {
	struct core *core;
	struct store_txn *txn;
	struct effects *effects;
	uint32_t position; /* of the command in the batch */
	uint32_t gateway;
	uint64_t session;
	uint64_t random;
	uint64_t index; /* of this command: for tokens, history */
	uint64_t mono_ms;
	uint64_t wall_ms;
	/* Of the command's reply; memory of `effects`. Handlers set it, most leave it empty. */
	struct sluice_slice payload;
};

/* Sets all members except session, random number and index, which are the command's. */
void apply_init(struct apply *a, struct core *core, struct store_txn *txn, struct effects *effects,
		uint32_t gateway);

/* Fills the outcome of a refusal and returns 0. */
int refuse(struct outcome *out, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static inline bool refused(const struct outcome *out)
{
	return out->code != 0;
}

static inline struct sluice_slice slice_text(const char *text)
{
	return (struct sluice_slice){text, strlen(text)};
}

/* One handler per command of commands.def. PB handlers take their message struct, BIN handlers
 * their body struct. */
#define PB(NAME, number, Message, message, permission, headroom, handler, text) \
	int handler(struct apply *a, const Sluice__##Message *m, struct outcome *out);
#define BIN(NAME, number, body_struct, permission, headroom, handler, text) \
	int handler(struct apply *a, const struct body_struct *m, struct outcome *out);
#include "broker/core/commands.def"
#undef PB
#undef BIN

#endif
