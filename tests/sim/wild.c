/* SPDX-License-Identifier: Apache-2.0
 *
 * The wild queue: items of all sizes, some of whose records cannot be read. The oracle only knows
 * the number of ready items and which consumers are willing. Acks name any item that was ever held.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/base/keys.h"
#include "broker/core/base/state.h"
#include "protocol/envelope.h"
#include "tests/sim/shadow.h"
#include "tests/sim/sim.h"

enum { PUTS_MAX = 12, LARGE_BYTES = 400000 };

void wild_put(struct sim *s)
{
	static uint8_t body[LARGE_BYTES], bytes[PUTS_MAX * 64 + LARGE_BYTES + 64];
	struct frame_publish f = {.target_kind = PUBLISH_TO_QUEUE};
	size_t used = 0;

	f.count = 1 + (uint32_t)roll(s, PUTS_MAX);
	for (uint32_t i = 0; i < f.count; i++) {
		struct envelope e = {.body = {body, 8}};

		/* Sometimes an item that is too large to be claimed together with others. */
		if (i == 0 && roll(s, 8) == 0)
			e.body.len = LARGE_BYTES;
		used += envelope_encode(bytes + used, &e);
	}
	f.raw_bytes = (uint32_t)used;
	f.subject = text("wild"), f.target = text("w");
	f.payload = (struct sluice_slice){bytes, used};
	submit(s, (struct op){.type = COMMAND_PUBLISH, .client = -1, .wild = true}, 1, 0, &f);
}

void wild_settle(struct sim *s)
{
	size_t n = s->wild_count < HELD_MAX ? s->wild_count : HELD_MAX;
	uint8_t run[12] = {0};
	struct cmd_ack ack = {.queue = s->wild, .run_count = 1, .runs = run};
	struct held h;

	if (n == 0)
		return;
	h = s->wild_held[(s->wild_count - 1 - roll(s, n)) % HELD_MAX];
	if (s->clients[h.client].connection == 0 || s->clients[h.client].closing)
		return;
	put_be64(run, h.item);
	put_be32(run + 8, 1);
	ack.token = h.token;
	ack.op = roll(s, 3) == 0 ? ACK_NACK : ACK_DONE;
	ack.value_ms = ack.op == ACK_NACK ? (uint32_t)roll(s, 3) * 700 : 0;
	submit(s, (struct op){.type = COMMAND_ACK, .client = h.client, .wild = true}, 1, h.session,
	       &ack);
}

static void spoil(struct store *store, const struct key *key)
{
	struct store_txn *txn;

	if (store == NULL)
		return;
	must(store_begin(store, &txn), "damage");
	must(store_put(txn, STORE_ITEM, key_slice(key), text("?")), "damage");
	must(store_commit(txn), "damage");
}

/* The shadow needs the same damage, or the two databases differ; with one_sided they do. */
void wild_damage(struct sim *s)
{
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct store_txn *txn;
	struct key key;
	uint64_t skip = roll(s, 20), seq;
	bool any = false;

	key_one(&key, 1, s->wild);
	must(store_begin_read(s->store, &txn), "read");
	must(store_scan_begin(txn, STORE_ITEM, key_slice(&key), &scan), "items");
	while (store_scan_next(scan, &found, &value) == 0 && key_two_in(found, 1, s->wild, &seq)) {
		any = true;
		key_two(&key, 1, s->wild, seq);
		if (skip-- == 0)
			break;
	}
	store_scan_end(scan);
	store_abort(txn);
	if (!any)
		return;
	shadow_pause(true);
	spoil(s->store, &key);
	if (!s->one_sided)
		spoil(shadow_store(), &key);
	shadow_pause(false);
}
