/* SPDX-License-Identifier: Apache-2.0
 *
 * The wild jobs: a queue of jobs some of whose records cannot be read: live, submission, history,
 * or the entry of the session that holds it. For damaged jobs the only requirement is that the
 * audit reports them; for the others: they are never refused for the damage, none waits while a
 * consumer is willing, and no lease outlives its session.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/base/keys.h"
#include "broker/core/base/name.h"
#include "broker/core/base/state.h"
#include "broker/core/job/live.h"
#include "broker/core/session/session.h"
#include "tests/sim/shadow.h"
#include "tests/sim/sim.h"

enum damage { DAMAGE_NONE, DAMAGE_LIVE, DAMAGE_RECORD, DAMAGE_HISTORY, DAMAGE_OWNED, DAMAGES };

/* ---- use ---- */

static void job_submit(struct sim *s, struct op op, char *id, uint64_t session)
{
	Sluice__JobSubmit m = SLUICE__JOB_SUBMIT__INIT;

	m.job = id, m.queue = (char *)"x", m.owner = (char *)"bob";
	op.type = COMMAND_JOB_SUBMIT;
	submit(s, op, 1, session, &m);
}

static void job_report(struct sim *s, struct op op, char *id, uint64_t session)
{
	static const char *const states[] = {"QUEUED", "ACTIVE", "ACTIVE", "SUSPENDED", "COMPLETE"};
	const struct wild_job *job = &s->wild_jobs[op.number];
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;

	m.job = id, m.token = job->token, m.attempt = job->attempt, m.source = (char *)"sim";
	m.state = (char *)states[roll(s, sizeof(states) / sizeof(states[0]))];
	m.release = roll(s, 4) == 0;
	m.exit_code = ++s->reports;
	op.type = COMMAND_JOB_REPORT;
	submit(s, op, 1, session, &m);
}

static void job_intend(struct sim *s, struct op op, char *id, uint64_t session)
{
	const struct wild_job *job = &s->wild_jobs[op.number];
	Sluice__JobIntent m = SLUICE__JOB_INTENT__INIT;

	m.job = id, m.token = job->token, m.attempt = job->attempt, m.tag = id;
	op.type = COMMAND_JOB_INTENT;
	submit(s, op, 1, session, &m);
}

static void job_release(struct sim *s, struct op op, char *id, uint64_t session)
{
	Sluice__JobRelease m = SLUICE__JOB_RELEASE__INIT;

	m.job = id, m.token = s->wild_jobs[op.number].token,
	m.delay_ms = (uint32_t)roll(s, 3) * 1500;
	op.type = COMMAND_JOB_RELEASE;
	submit(s, op, 1, session, &m);
}

static void job_end(struct sim *s, struct op op, char *id, uint64_t session)
{
	Sluice__JobCancel cancel = SLUICE__JOB_CANCEL__INIT;
	Sluice__JobReset reset = SLUICE__JOB_RESET__INIT;

	cancel.job = reset.job = id;
	reset.force = roll(s, 2) == 0;
	op.type = roll(s, 2) == 0 ? COMMAND_JOB_CANCEL : COMMAND_JOB_RESET;
	submit(s, op, 1, session, op.type == COMMAND_JOB_CANCEL ? (void *)&cancel : (void *)&reset);
}

void wild_job_do(struct sim *s)
{
	int number = (int)roll(s, WILD_JOBS);
	struct op op = {.number = number,
			.client = s->wild_jobs[number].client,
			.wild = true,
			.wild_job = true};
	const struct client *client = &s->clients[op.client];
	uint64_t what = roll(s, 12);
	char id[16];

	if (client->connection == 0 || client->closing)
		return;
	snprintf(id, sizeof(id), "x%d", number);
	if (what < 4 || s->wild_jobs[number].token == 0)
		job_submit(s, op, id, client->session);
	else if (what < 7)
		job_report(s, op, id, client->session);
	else if (what < 9)
		job_intend(s, op, id, client->session);
	else if (what < 10)
		job_release(s, op, id, client->session);
	else
		job_end(s, op, id, client->session);
}

/* ---- notices to them ---- */

void wild_job_answered(struct sim *s, const struct op *op, const struct outcome *out)
{
	struct wild_job *job = &s->wild_jobs[op->number];

	/* The damaged job was deleted, and this is another job with the same name. */
	if (op->type == COMMAND_JOB_SUBMIT && out->code == 0 && out->id != job->number)
		job->damage = DAMAGE_NONE;
	if (out->code == SLUICE_E_CORRUPT && job->damage == DAMAGE_NONE)
		oracle_blame(s->oracle, "a job that is not damaged is refused as damaged",
			     op->number, op->type);
}

void wild_jobs_granted(struct sim *s, const struct effect *e, int client)
{
	Sluice__JobDeliveries *d =
		sluice__job_deliveries__unpack(NULL, e->payload.len, e->payload.data);

	for (size_t i = 0; d != NULL && i < d->n_jobs; i++) {
		int number = atoi(d->jobs[i]->job + 1);
		struct wild_job *job = &s->wild_jobs[number];

		job->token = d->jobs[i]->token;
		job->attempt = d->jobs[i]->attempt;
		job->client = client;
		if (job->damage == DAMAGE_LIVE)
			oracle_blame(s->oracle,
				     "a job whose live record cannot be read was delivered", number,
				     0);
	}
	sluice__job_deliveries__free_unpacked(d, NULL);
}

/* ---- damage ---- */

/* False: there is no such record. */
static bool record_of(struct store_txn *txn, uint64_t number, enum damage damage,
		      enum store_table *ret_table, struct key *ret_key)
{
	struct sluice_slice value;
	struct job_live live;

	if (job_live_get(txn, 1, number, &live) != 0)
		return false;
	*ret_table = damage == DAMAGE_LIVE     ? STORE_LIVE
		     : damage == DAMAGE_RECORD ? STORE_JOB
		     : damage == DAMAGE_OWNED  ? STORE_OWNED
					       : STORE_HIST;
	if (damage == DAMAGE_OWNED)
		key_owned(ret_key, 1, live.holder, OWNED_JOB, number);
	else if (damage == DAMAGE_HISTORY)
		key_one(ret_key, 1, live.hist_intent != 0 ? live.hist_intent : live.hist_last);
	else
		key_one(ret_key, 1, number);
	return store_get(txn, *ret_table, key_slice(ret_key), &value) == 0;
}

static void spoil(struct store *store, enum store_table table, const struct key *key)
{
	struct store_txn *txn;

	if (store == NULL)
		return;
	must(store_begin(store, &txn), "damage");
	must(store_put(txn, table, key_slice(key), text("?")), "damage");
	must(store_commit(txn), "damage");
}

/* The shadow needs the same damage, or the two databases differ; with one_sided they do. */
static void spoil_both(struct sim *s, enum store_table table, const struct key *key)
{
	shadow_pause(true);
	spoil(s->store, table, key);
	if (!s->one_sided)
		spoil(shadow_store(), table, key);
	shadow_pause(false);
}

static bool waits(struct store_txn *txn, int wild_job)
{
	struct job_live live;
	uint64_t number;
	char id[16];

	snprintf(id, sizeof(id), "x%d", wild_job);
	return name_find(txn, 1, NAME_JOB, text(id), &number) == 0 &&
	       job_live_get(txn, 1, number, &live) == 0 &&
	       (live.claim == JOB_READY || live.claim == JOB_ORPHANED || live.claim == JOB_GATED);
}

/* Usually a job that waits in the queue, so that claims have to skip it. */
static int some_job(struct sim *s)
{
	int first = (int)roll(s, WILD_JOBS), number = first;
	struct store_txn *txn;

	if (roll(s, 3) == 0)
		return first;
	must(store_begin_read(s->store, &txn), "read");
	for (int i = 0; i < WILD_JOBS && !waits(txn, number); i++)
		number = (number + 1) % WILD_JOBS;
	store_abort(txn);
	return number;
}

void wild_job_damage(struct sim *s)
{
	int number = some_job(s);
	enum damage damage = (enum damage)(1 + roll(s, DAMAGES - 1));
	struct wild_job *job = &s->wild_jobs[number];
	enum store_table table;
	struct store_txn *txn;
	struct key key;
	char id[16];
	bool found;

	snprintf(id, sizeof(id), "x%d", number);
	must(store_begin_read(s->store, &txn), "read");
	found = job->damage == DAMAGE_NONE &&
		name_find(txn, 1, NAME_JOB, text(id), &job->number) == 0 &&
		record_of(txn, job->number, damage, &table, &key);
	store_abort(txn);
	if (!found)
		return;
	job->damage = (uint8_t)damage;
	spoil_both(s, table, &key);
}

/* The entry of a lease that lasts as long as its session: the broker finds the same data in other
 * records, so the damage has no effect. */
void owned_grant_damage(struct sim *s)
{
	const struct client *client = &s->clients[CLIENTS - 1];
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct store_txn *txn;
	struct key key;
	uint64_t token;
	bool any;

	if (client->session == 0)
		return;
	key_owned(&key, 1, client->session, OWNED_GRANT, 0);
	must(store_begin_read(s->store, &txn), "read");
	must(store_scan_begin(txn, STORE_OWNED, key_slice(&key), &scan), "owned");
	any = store_scan_next(scan, &found, &value) == 0 &&
	      key_owned_in(found, 1, client->session, OWNED_GRANT, &token);
	if (any)
		key_owned(&key, 1, client->session, OWNED_GRANT, token);
	store_scan_end(scan);
	store_abort(txn);
	if (any)
		spoil_both(s, STORE_OWNED, &key);
}

/* ---- checks of reads ---- */

void wild_job_shown(struct sim *s, const Sluice__JobInfo *row, struct oracle_rest *rest)
{
	struct wild_job *job = &s->wild_jobs[atoi(row->job + 1)];

	if (job->damage != DAMAGE_NONE)
		return;
	rest->ready[FEED_WILD_JOBS] += strcmp(row->claim, "ready") == 0;
	rest->wild_orphaned += strcmp(row->claim, "orphaned") == 0;
	if (s->quiet && strcmp(row->claim, "leased") == 0)
		oracle_wild_leased(s->oracle, row->holder_session);
}

/* The job's number in a finding of the audit, "job N ..." or "job N: ...". 0: none. */
static uint64_t job_of(const char *finding)
{
	return strncmp(finding, "job ", 4) == 0 ? strtoull(finding + 4, NULL, 10) : 0;
}

void wild_jobs_audited(struct sim *s, const Sluice__Audited *audited)
{
	bool reported[WILD_JOBS] = {false};

	for (size_t i = 0; i < audited->n_findings; i++) {
		bool known = false;

		for (int number = 0; number < WILD_JOBS; number++) {
			const struct wild_job *job = &s->wild_jobs[number];

			if (job->damage == DAMAGE_NONE ||
			    job->number != job_of(audited->findings[i]))
				continue;
			known = reported[number] = true;
		}
		if (!known)
			oracle_blame(s->oracle, audited->findings[i], (int64_t)audited->n_findings,
				     0);
	}
	/* The broker never rewrites an unreadable record, so the damage stays. */
	for (int number = 0; number < WILD_JOBS; number++) {
		if (s->wild_jobs[number].damage == DAMAGE_LIVE && !reported[number])
			oracle_blame(s->oracle, "the audit does not report a damaged job", number,
				     (int64_t)s->wild_jobs[number].number);
	}
}
