/* SPDX-License-Identifier: Apache-2.0
 * Sessions, gateways, ticks. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/apply.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/keys.h"
#include "broker/core/base/meta.h"
#include "broker/core/session/session.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

static struct outcome session_open(struct world *world, const char *name, uint32_t timeout_ms)
{
	struct cmd_session_open open = {.name = world_text(name), .timeout_ms = timeout_ms};

	memset(open.secret, 3, sizeof(open.secret));
	return world_apply(world, COMMAND_SESSION_OPEN, 0, &open);
}

static struct outcome session_expire(struct world *world, uint64_t session)
{
	struct cmd_session_expire expire = {session};

	return world_apply(world, COMMAND_SESSION_EXPIRE, 0, &expire);
}

static struct outcome session_close(struct world *world, uint64_t session)
{
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;

	return world_apply(world, COMMAND_SESSION_CLOSE, session, &close);
}

static int session_find(struct world *world, uint64_t session, struct session_ref *ret)
{
	struct store_txn *txn;
	int rc;

	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	rc = core_session_find(txn, world->gateway, session, ret);
	store_abort(txn);
	return rc;
}

static void job_queue(struct world *world, unsigned jobs)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__JobSubmit submit = SLUICE__JOB_SUBMIT__INIT;
	char name[16];

	config.name = (char *)"work";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	world_must(world, COMMAND_QUEUE_CREATE, 0, &create);
	submit.queue = (char *)"work";
	submit.job = name;
	for (unsigned i = 0; i < jobs; i++) {
		snprintf(name, sizeof(name), "j%05u", i);
		world_must(world, COMMAND_JOB_SUBMIT, 0, &submit);
	}
}

static uint32_t claim(struct world *world, uint64_t session, const char *queue, uint8_t flags)
{
	struct cmd_claim claim = {.queue = world_queue_ref(world, queue).id,
				  .max = 1000,
				  .flags = flags};

	return world_must(world, COMMAND_CLAIM, session, &claim).count;
}

Test(core_session, open_close_expire)
{
	struct sluice_slice answer;
	struct session_ref ref;
	struct world world;
	struct outcome out;

	world_open(&world, WORLD_MEM);
	out = session_open(&world, NULL, 0);
	cr_assert_eq(out.kind, OUT_SESSION);
	answer = world_effect(&world, FX_REPLY)->payload;
	cr_assert_eq(answer.len, 16, "its secret");
	cr_assert_eq(((const uint8_t *)answer.data)[15], 3);
	cr_assert_eq(world_effect(&world, FX_SESSION_OPENED)->id, out.id);
	cr_assert_eq(world_effect(&world, FX_SESSION_OPENED)->lease_ms, 30000);
	cr_assert_eq(session_find(&world, out.id, &ref), 0);
	cr_assert_eq(ref.timeout_ms, 30000);
	cr_assert_eq(ref.secret[15], 3);
	cr_assert_eq(session_close(&world, out.id).code, 0);
	cr_assert_eq(world_effect(&world, FX_REPLY)->payload.len, 0, "no other answer has one");
	cr_assert_eq(world_effect(&world, FX_SESSION_ENDED)->id, out.id);
	cr_assert_not(world_effect(&world, FX_SESSION_ENDED)->lapsed);
	cr_assert_eq(session_find(&world, out.id, &ref), SLUICE_E_NOT_FOUND);
	cr_assert_eq(session_close(&world, out.id).code, SLUICE_E_SESSION_GONE);
	cr_assert_eq(session_expire(&world, out.id).code, SLUICE_E_SESSION_GONE);
	out = session_open(&world, NULL, 5000);
	cr_assert_eq(session_expire(&world, out.id).code, 0);
	cr_assert_eq(world_effects(&world, FX_SESSION_ENDED), 1);
	cr_assert(world_effect(&world, FX_SESSION_ENDED)->lapsed, "nobody resumed it");
	cr_assert_eq(session_expire(&world, 0).code, SLUICE_E_SESSION_GONE);
	cr_assert_eq(world_records(&world, STORE_SESSION), 0);
	world_close(&world);
}

Test(core_session, limits)
{
	char text[2000];
	struct cmd_session_open open = {.client = {text, LIMIT_TEXT_BYTES_MAX + 1}};
	struct session_ref ref;
	struct world world;

	memset(text, 't', sizeof(text));
	world_open(&world, WORLD_MEM);
	cr_assert_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_LIMIT);
	open.client.len--;
	open.name = (struct sluice_slice){text, LIMIT_NAME_BYTES_MAX + 1};
	cr_assert_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_LIMIT);
	open.name.len--;
	cr_assert_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, 0);
	/* limit: SESSION_TIMEOUT_MS_MIN */
	cr_assert_eq(session_find(&world,
				  session_open(&world, NULL,
					       (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MIN - 1)
					  .id,
				  &ref),
		     0);
	cr_assert_eq(ref.timeout_ms, LIMIT_SESSION_TIMEOUT_MS_MIN);
	cr_assert_eq(session_find(&world,
				  session_open(&world, NULL,
					       (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MIN + 1)
					  .id,
				  &ref),
		     0);
	cr_assert_eq(ref.timeout_ms, LIMIT_SESSION_TIMEOUT_MS_MIN + 1);
	/* limit: SESSION_TIMEOUT_MS_MAX */
	cr_assert_eq(session_find(&world,
				  session_open(&world, NULL,
					       (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MAX + 1)
					  .id,
				  &ref),
		     0);
	cr_assert_eq(ref.timeout_ms, LIMIT_SESSION_TIMEOUT_MS_MAX);
	cr_assert_eq(session_find(&world,
				  session_open(&world, NULL,
					       (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MAX - 1)
					  .id,
				  &ref),
		     0);
	cr_assert_eq(ref.timeout_ms, LIMIT_SESSION_TIMEOUT_MS_MAX - 1);
	world_close(&world);
}

Test(core_session, a_name_is_taken_over_at_once)
{
	struct session_ref ref;
	struct world world;
	uint64_t older, newer;

	world_open(&world, WORLD_MEM);
	job_queue(&world, 3);
	older = session_open(&world, "scheduler", 30000).id;
	cr_assert_eq(claim(&world, older, "work", 0), 3);
	newer = session_open(&world, "scheduler", 30000).id;
	cr_assert_eq(world_effect(&world, FX_SESSION_ENDED)->id, older);
	cr_assert_not(world_effect(&world, FX_SESSION_ENDED)->lapsed);
	cr_assert_eq(world_effect(&world, FX_SESSION_OPENED)->id, newer);
	cr_assert_eq(session_find(&world, older, &ref), SLUICE_E_NOT_FOUND);
	cr_assert_eq(claim(&world, newer, "work", 0), 0, "orphaned, not ready");
	cr_assert_eq(claim(&world, newer, "work", CLAIM_ORPHANS), 3);
	cr_assert_eq(session_close(&world, newer).code, 0);
	cr_assert_neq(session_open(&world, "scheduler", 30000).id, newer, "the name is free again");
	cr_assert_eq(world_effects(&world, FX_SESSION_ENDED), 0);
	world_close(&world);
}

Test(core_session, session_leases_go_back_to_the_queue)
{
	struct world world;
	uint64_t session;

	world_open(&world, WORLD_MEM);
	world_queue(&world, "q", "a", 0);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	session = world_session(&world, NULL);
	cr_assert_eq(claim(&world, session, "q", CLAIM_SESSION_LEASE), 5);
	cr_assert_eq(world_ready(&world, "q"), 0);
	cr_assert_eq(session_expire(&world, session).code, 0);
	cr_assert_eq(world_ready(&world, "q"), 5);
	cr_assert_eq(world_records(&world, STORE_OWNED), 0);
	world_close(&world);
}

/* More entries than end at once: the tick ends the others within its budget. Until then nobody can
 * use the session. */
Test(core_session, the_end_of_a_big_session_is_bounded)
{
	enum { JOBS = 1500 };
	struct session_ref ref;
	struct world world;
	uint64_t session;

	world_open(&world, WORLD_MEM);
	job_queue(&world, JOBS);
	session = world_session(&world, "big");
	for (uint32_t held = 0; held < JOBS;)
		held += claim(&world, session, "work", 0);
	cr_assert_eq(session_close(&world, session).code, 0);
	cr_assert_eq(session_find(&world, session, &ref), SLUICE_E_NOT_FOUND);
	cr_assert_eq(world_records(&world, STORE_SESSION), 1, "kept until its last entry");
	cr_assert_geq(world_ticks(&world, 100), 4);
	cr_assert_eq(world_records(&world, STORE_SESSION), 0);
	session = world_session(&world, "big");
	for (uint32_t held = 0; held < JOBS;) {
		uint32_t got = claim(&world, session, "work", CLAIM_ORPHANS);

		cr_assert_gt(got, 0);
		held += got;
	}
	world_close(&world);
}

static int count_sessions(void *user, const struct session_row *row)
{
	unsigned *count = user;

	cr_assert_eq(row->timeout_ms, 30000);
	++*count;
	return row->gateway == 1 && row->session > 0 ? 0 : SLUICE_E_CORRUPT;
}

static int keep_address(void *user, const struct session_row *row)
{
	char *address = user;

	snprintf(address, 64, "%.*s", (int)row->address.len, (const char *)row->address.data);
	return 0;
}

static void address_of(struct world *world, char ret[64])
{
	struct store_txn *txn;

	ret[0] = '?', ret[1] = 0;
	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	cr_assert_eq(core_session_each(txn, keep_address, ret), 0);
	store_abort(txn);
}

Test(core_session, the_address_is_kept_and_an_older_record_has_none)
{
	struct cmd_session_open open = {.name = world_text("it"),
					.client = world_text("test"),
					.timeout_ms = 30000,
					.face = SESSION_FACE_NATIVE,
					.address = world_text("192.0.2.7")};
	Sluice__SessionList list = SLUICE__SESSION_LIST__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	const Sluice__Reply *reply;
	struct session_ref ref;
	struct store_txn *txn;
	struct world world;
	uint8_t before[33 + 2 + 4] = {0};
	char address[64];
	struct key key;
	uint64_t session;

	world_open(&world, WORLD_MEM);
	session = world_must(&world, COMMAND_SESSION_OPEN, 0, &open).id;
	cr_assert_eq(world_effect(&world, FX_SESSION_OPENED)->name.len, 9);
	cr_assert_eq(world_effect(&world, FX_SESSION_OPENED)->count, 1);
	address_of(&world, address);
	cr_expect_str_eq(address, "192.0.2.7");
	request.op_case = SLUICE__REQUEST__OP_SESSION_LIST;
	request.session_list = &list;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_sessions, 1);
	cr_expect_str_eq(reply->sessions[0]->address, "192.0.2.7");
	cr_expect_str_eq(reply->sessions[0]->name, "it");
	/* secret 16, timeout, opened, lengths, texts, and nothing else */
	put_be32(before + 17, 12345);
	put_be16(before + 29, 2);
	put_be16(before + 31, 4);
	memcpy(before + 33, "ittest", 6);
	cr_assert_eq(store_begin(world.store, &txn), 0);
	key_one(&key, world.gateway, session);
	cr_assert_eq(store_put(txn, STORE_SESSION, key_slice(&key),
			       (struct sluice_slice){before, sizeof(before)}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	address_of(&world, address);
	cr_expect_str_eq(address, "");
	cr_assert_eq(session_find(&world, session, &ref), 0);
	cr_expect_eq(ref.timeout_ms, 12345);
	cr_expect_eq(session_close(&world, session).code, 0);
	cr_expect_eq(world_records(&world, STORE_SESSION), 0);
	world_close(&world);
}

/* As a later broker may write it. */
Test(core_session, an_entry_that_has_more_than_this_broker_knows_is_read)
{
	struct owned_value value = {.more = world_text("and more")};
	struct owned_entry entries[2];
	struct apply a = {0};
	size_t count = 0;
	struct store_txn *txn;
	struct world world;
	struct key key;
	uint8_t bytes[64];
	uint64_t session, token;

	world_open(&world, WORLD_MEM);
	world_queue(&world, "q", "a", 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	session = world_session(&world, NULL);
	cr_assert_eq(claim(&world, session, "q", CLAIM_SESSION_LEASE), 3);
	token = world_effect(&world, FX_GRANT)->token;
	value.sub = world_queue_ref(&world, "q").id;
	cr_assert_eq(store_begin(world.store, &txn), 0);
	key_owned(&key, world.gateway, session, OWNED_GRANT, token);
	cr_assert_eq(store_put(txn, STORE_OWNED, key_slice(&key),
			       (struct sluice_slice){bytes, owned_value_encode(bytes, &value)}),
		     0);
	a.core = world.core;
	a.txn = txn;
	a.gateway = world.gateway;
	cr_assert_eq(session_owned_gather(&a, &key, 0, entries, 2, &count), 0);
	cr_assert_eq(count, 1);
	cr_expect(!entries[0].damaged && entries[0].sub == value.sub && entries[0].id == token);
	cr_assert_eq(store_commit(txn), 0);
	cr_assert_eq(session_expire(&world, session).code, 0);
	cr_expect_eq(world_effects(&world, FX_ITEM_DAMAGED), 0);
	cr_expect_eq(world_ready(&world, "q"), 3);
	cr_expect_eq(world_records(&world, STORE_OWNED), 0);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
	world_close(&world);
}

/* ---- who has it ---- */

static struct outcome session_alter(struct world *world, uint64_t session,
				    const struct cmd_session_alter *alter)
{
	return world_apply(world, COMMAND_SESSION_ALTER, session, alter);
}

static Sluice__SessionInfo shown(struct world *world)
{
	Sluice__SessionList list = SLUICE__SESSION_LIST__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	const Sluice__Reply *reply;

	request.op_case = SLUICE__REQUEST__OP_SESSION_LIST;
	request.session_list = &list;
	reply = world_query(world, &request);
	cr_assert_eq(reply->n_sessions, 1);
	return *reply->sessions[0];
}

static struct session record(struct world *world, uint64_t session, char via[64])
{
	struct store_txn *txn;
	struct session ret;

	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	cr_assert_eq(session_get(txn, world->gateway, session, &ret), 0);
	snprintf(via, 64, "%.*s", (int)ret.via.len, (const char *)ret.via.data);
	store_abort(txn);
	return ret;
}

Test(core_session, what_is_known_of_the_client_is_kept_and_shown)
{
	struct cmd_session_open open = {.client = world_text("test"),
					.flags = SESSION_EPHEMERAL,
					.face = SESSION_FACE_AMQP,
					.principal = world_text("ada"),
					.via = world_text("10.0.0.1"),
					.address = world_text("192.0.2.7")};
	struct world world;
	Sluice__SessionInfo info;
	uint64_t session;
	char via[64];

	world_open(&world, WORLD_MEM);
	session = world_must(&world, COMMAND_SESSION_OPEN, 0, &open).id;
	info = shown(&world);
	cr_expect_str_eq(info.principal, "ada");
	cr_expect_eq(info.face, SLUICE__FACE__FACE_AMQP);
	cr_expect_str_eq(info.address, "192.0.2.7");
	cr_expect(info.ephemeral);
	cr_expect_eq(record(&world, session, via).flags, SESSION_EPHEMERAL);
	cr_expect_str_eq(via, "10.0.0.1");
	world_restart(&world);
	cr_expect_str_eq(shown(&world).principal, "ada");
	session_close(&world, session);
	open.flags = SESSION_STANDING;
	session = world_must(&world, COMMAND_SESSION_OPEN, 0, &open).id;
	cr_expect_not(shown(&world).ephemeral);
	cr_expect_eq(record(&world, session, via).flags, SESSION_STANDING);
	world_close(&world);
}

Test(core_session, an_open_with_unknown_flags_or_face_or_with_long_texts_is_refused)
{
	char text[300];
	struct cmd_session_open open = {.flags = 1};
	struct world world;

	memset(text, 't', sizeof(text));
	world_open(&world, WORLD_MEM);
	cr_expect_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_INVAL,
		     "ended is no flag of a new one");
	open.flags = 8;
	cr_expect_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_INVAL);
	open.flags = SESSION_EPHEMERAL | SESSION_STANDING;
	cr_expect_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_INVAL);
	open.flags = 0;
	open.face = SESSION_FACE_COUNT;
	cr_expect_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_INVAL);
	open.face = SESSION_FACE_THRIFT;
	open.principal = (struct sluice_slice){text, SESSION_WHO_BYTES_MAX + 1};
	cr_expect_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_LIMIT);
	open.principal.len--;
	open.via = (struct sluice_slice){text, SESSION_WHO_BYTES_MAX + 1};
	cr_expect_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_LIMIT);
	open.via.len--;
	open.address = (struct sluice_slice){text, SESSION_ADDRESS_BYTES_MAX + 1};
	cr_expect_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, SLUICE_E_LIMIT);
	cr_expect_eq(world_records(&world, STORE_SESSION), 0);
	open.address.len--;
	cr_expect_eq(world_apply(&world, COMMAND_SESSION_OPEN, 0, &open).code, 0);
	world_close(&world);
}

Test(core_session, an_alteration_replaces_what_it_names_and_keeps_the_rest)
{
	struct cmd_session_open open = {.name = world_text("it"),
					.client = world_text("test"),
					.timeout_ms = 30000,
					.face = SESSION_FACE_ZOOKEEPER,
					.address = world_text("192.0.2.7")};
	struct cmd_session_alter none = {0}, alter = {.timeout_ms = 60000};
	struct session_ref ref;
	struct world world;
	struct outcome out;
	uint64_t session;
	char via[64];

	for (int store = 0; store < 2; store++) {
		world_open(&world, store == 0 ? WORLD_MEM : WORLD_LMDB);
		session = world_must(&world, COMMAND_SESSION_OPEN, 0, &open).id;
		out = session_alter(&world, session, &none);
		cr_expect_eq(out.code, 0);
		cr_expect(out.kind == OUT_SESSION && out.id == session);
		cr_expect_eq(world_effects(&world, FX_SESSION_ALTERED), 0);
		cr_expect_eq(session_alter(&world, session, &alter).code, 0);
		cr_assert_eq(world_effects(&world, FX_SESSION_ALTERED), 1);
		cr_expect_eq(world_effect(&world, FX_SESSION_ALTERED)->lease_ms, 60000);
		cr_expect_eq(world_effect(&world, FX_SESSION_ALTERED)->name.len, 9);
		cr_assert_eq(session_find(&world, session, &ref), 0);
		cr_expect_eq(ref.timeout_ms, 60000);
		alter = (struct cmd_session_alter){.principal = world_text("ada"),
						   .via = world_text("10.0.0.1"),
						   .address = world_text("2001:db8::7")};
		cr_expect_eq(session_alter(&world, session, &alter).code, 0);
		cr_expect_eq(world_effect(&world, FX_SESSION_ALTERED)->name.len, 11);
		cr_expect_str_eq(shown(&world).name, "it");
		cr_expect_str_eq(shown(&world).client, "test");
		cr_expect_str_eq(shown(&world).principal, "ada");
		cr_expect_str_eq(shown(&world).address, "2001:db8::7");
		cr_expect_eq(shown(&world).timeout_ms, 60000);
		cr_expect_eq(record(&world, session, via).face, SESSION_FACE_ZOOKEEPER);
		cr_expect_str_eq(via, "10.0.0.1");
		cr_expect_eq(session_alter(&world, session, &alter).code, 0, "it may be repeated");
		cr_expect_eq(world_effects(&world, FX_SESSION_ALTERED), 0);
		/* The timeout has the bounds of an opening's. */
		alter = (struct cmd_session_alter){.timeout_ms = 1};
		cr_expect_eq(session_alter(&world, session, &alter).code, 0);
		cr_expect_eq(shown(&world).timeout_ms, LIMIT_SESSION_TIMEOUT_MS_MIN);
		alter.timeout_ms = UINT32_MAX;
		cr_expect_eq(session_alter(&world, session, &alter).code, 0);
		cr_expect_eq(shown(&world).timeout_ms, LIMIT_SESSION_TIMEOUT_MS_MAX);
		alter.timeout_ms = 60000;
		world_close(&world);
	}
}

Test(core_session, an_alteration_of_an_ended_session_of_another_principal_or_too_long_is_refused)
{
	struct cmd_session_open open = {.principal = world_text("ada")};
	struct cmd_session_alter alter = {.timeout_ms = 60000, .principal = world_text("eve")};
	struct world world;
	uint64_t session;
	char text[300];

	memset(text, 't', sizeof(text));
	world_open(&world, WORLD_MEM);
	cr_expect_eq(session_alter(&world, 0, &alter).code, SLUICE_E_SESSION_GONE);
	session = world_must(&world, COMMAND_SESSION_OPEN, 0, &open).id;
	cr_expect_eq(session_alter(&world, session, &alter).code, SLUICE_E_DENIED);
	cr_expect_str_eq(shown(&world).principal, "ada");
	cr_expect_eq(shown(&world).timeout_ms, 30000, "a refusal changes nothing");
	alter.principal = world_text("ada");
	cr_expect_eq(session_alter(&world, session, &alter).code, 0, "the same one");
	alter.via = (struct sluice_slice){text, SESSION_WHO_BYTES_MAX + 1};
	cr_expect_eq(session_alter(&world, session, &alter).code, SLUICE_E_LIMIT);
	alter.via.len--;
	alter.address = (struct sluice_slice){text, SESSION_ADDRESS_BYTES_MAX + 1};
	cr_expect_eq(session_alter(&world, session, &alter).code, SLUICE_E_LIMIT);
	alter.address.len--;
	cr_expect_eq(session_alter(&world, session, &alter).code, 0);
	session_close(&world, session);
	cr_expect_eq(session_alter(&world, session, &alter).code, SLUICE_E_SESSION_GONE);
	world_close(&world);
}

/* The rules of before stay for the journals of before. */
Test(core_session, before_level_1_nothing_is_altered_and_unknown_flags_are_left_out)
{
	struct cmd_session_open open = {.flags = SESSION_EPHEMERAL | 64, .face = 200};
	struct cmd_session_alter alter = {.timeout_ms = 60000};
	struct world world;
	uint64_t session;
	char via[64];

	world_open_at(&world, WORLD_MEM, 0);
	session = world_must(&world, COMMAND_SESSION_OPEN, 0, &open).id;
	cr_expect_eq(record(&world, session, via).flags, SESSION_EPHEMERAL);
	cr_expect_eq(session_alter(&world, session, &alter).code, SLUICE_E_UNSUPPORTED);
	cr_expect_eq(shown(&world).timeout_ms, 30000);
	world_close(&world);
}

/* limit: SESSIONS_MAX */
Test(core_session, a_gateway_has_a_bounded_number_of_sessions)
{
	struct world world;
	struct store_txn *txn;
	struct apply a = {0};
	struct session_ref ref;
	struct outcome named;
	uint64_t session;

	world_open(&world, WORLD_MEM);
	cr_assert_eq(store_begin(world.store, &txn), 0);
	a.txn = txn;
	a.gateway = world.gateway;
	cr_assert_eq(counter_set(&a, COUNTER_SESSIONS, LIMIT_SESSIONS_MAX - 1), 0);
	cr_assert_eq(store_commit(txn), 0);
	named = session_open(&world, "ada", 30000);
	session = named.id;
	cr_expect_eq(named.code, 0);
	cr_expect_eq(session_open(&world, "", 30000).code, SLUICE_E_BUSY);
	cr_expect_eq(session_open(&world, "eve", 30000).code, SLUICE_E_BUSY);
	/* A session that replaces another needs no room. */
	named = session_open(&world, "ada", 30000);
	cr_expect_eq(named.code, 0);
	cr_expect_eq(session_find(&world, session, &ref), SLUICE_E_NOT_FOUND);
	session = named.id;
	cr_expect_eq(session_open(&world, "", 30000).code, SLUICE_E_BUSY,
		     "and there is no more room");
	cr_expect_eq(session_close(&world, session).code, 0);
	cr_expect_eq(session_open(&world, "", 30000).code, 0);
	world_discard(&world);
}

Test(core_session, list_each_and_status)
{
	Sluice__SessionList list = SLUICE__SESSION_LIST__INIT;
	Sluice__StatusGet get = SLUICE__STATUS_GET__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	const Sluice__Reply *reply;
	struct store_txn *txn;
	struct world world;
	unsigned count = 0;
	uint64_t first;

	world_open(&world, WORLD_MEM);
	job_queue(&world, 2);
	first = world_session(&world, "one");
	world_session(&world, NULL);
	world_session(&world, "two");
	cr_assert_eq(claim(&world, first, "work", 0), 2);
	request.op_case = SLUICE__REQUEST__OP_SESSION_LIST;
	request.session_list = &list;
	list.max = 2;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_sessions, 2);
	cr_assert(reply->more);
	cr_assert_str_eq(reply->sessions[0]->name, "one");
	cr_assert_str_eq(reply->sessions[0]->client, "test");
	cr_assert_eq(reply->sessions[0]->jobs_held, 2);
	list.after = reply->sessions[1]->id;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_sessions, 1);
	cr_assert_not(reply->more);
	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	cr_assert_eq(core_session_each(txn, count_sessions, &count), 0);
	store_abort(txn);
	cr_assert_eq(count, 3);
	request.op_case = SLUICE__REQUEST__OP_STATUS_GET;
	request.status_get = &get;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->status->sessions, 3);
	cr_assert_eq(reply->status->queues, 2);
	cr_assert_eq(reply->status->streams, 0);
	cr_assert_eq(reply->status->jobs, 2);
	cr_assert_eq(reply->status->jobs_open, 2);
	cr_assert_str_eq(reply->status->gateway, "default");
	cr_assert_eq(reply->status->index, reply->index);
	world_close(&world);
}

/* ---- gateways ---- */

static struct outcome gateway_create(struct world *world, const char *name)
{
	Sluice__GatewayCreate create = SLUICE__GATEWAY_CREATE__INIT;

	create.name = (char *)(uintptr_t)name;
	return world_apply(world, COMMAND_GATEWAY_CREATE, 0, &create);
}

Test(core_gateway, names_live_in_one)
{
	struct store_txn *txn;
	struct world world;
	uint32_t other = 0;
	uint64_t index = 0;

	world_open(&world, WORLD_MEM);
	cr_assert_eq(gateway_create(&world, "").code, SLUICE_E_INVAL);
	cr_assert_eq(gateway_create(&world, "default").code, SLUICE_E_EXISTS);
	cr_assert_eq(gateway_create(&world, "seagrid").code, 0);
	world_stream(&world, "s", "a", 0, 0, 0);
	cr_assert_eq(world_publish(&world, "a", "here").code, 0);
	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	cr_assert_eq(core_gateway_find(txn, world_text("seagrid"), &other), 0);
	cr_assert_eq(core_gateway_find(txn, world_text("nobody"), &other), SLUICE_E_NOT_FOUND);
	cr_assert_eq(core_index_read(txn, other, &index), 0);
	store_abort(txn);
	cr_assert_eq(other, 2);
	world.gateway = other;
	cr_assert_eq(world_publish(&world, "a", "there").offset, UINT64_MAX);
	cr_assert_eq(world_stream(&world, "s", "a", 0, 0, 0).code, 0);
	cr_assert_eq(world_publish(&world, "a", "there").index, index + 3, "an index per gateway");
	cr_assert_str_eq(world_events(&world, "s"), "a=there");
	cr_assert_eq(world_ready(&world, "dead-letter"), 0, "it has one");
	world.gateway = 3;
	cr_assert_eq(world_publish(&world, "a", "nowhere").code, SLUICE_E_NOT_FOUND);
	world.gateway = 0;
	cr_assert_eq(world_publish(&world, "a", "nowhere").code, SLUICE_E_NOT_FOUND);
	world.gateway = 1;
	world_close(&world);
}

Test(core_gateway, ticks_take_turns)
{
	struct cmd_tick tick = {.work_max = 5};
	struct world world;
	size_t left[2];

	world_open(&world, WORLD_MEM);
	cr_assert_eq(gateway_create(&world, "other").code, 0);
	for (world.gateway = 1; world.gateway <= 2; world.gateway++) {
		world_stream(&world, "s", "a", 0, 0, 1000);
		for (int i = 0; i < 20; i++)
			cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	}
	world.gateway = 1;
	world_wait(&world, 5000);
	world_apply(&world, COMMAND_TICK, 0, &tick);
	world_apply(&world, COMMAND_TICK, 0, &tick);
	for (world.gateway = 1; world.gateway <= 2; world.gateway++)
		left[world.gateway - 1] = world_segments(&world, "s");
	cr_assert_eq(left[0], 15, "%zu", left[0]);
	cr_assert_eq(left[1], 15, "the second tick began with the second gateway");
	world.gateway = 1;
	left[0] = world_ticks(&world, 5);
	cr_assert(left[0] >= 6 && left[0] <= 8, "%zu ticks for 30 segments at 5 a tick", left[0]);
	world_close(&world);
}
