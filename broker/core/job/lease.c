/* SPDX-License-Identifier: Apache-2.0
 *
 * Job leases: granted by CLAIM, taken over from orphans, redelivered, returned by RELEASE. The
 * token is the index of the command that granted the lease, so a takeover's is higher. A lease has
 * no deadline: it ends with a report, a release, a takeover, or its session; then the job is
 * orphaned. A timer alone never returns it to the queue.
 *
 * Deliveries are packed one after the other into a buffer, which then is the protobuf encoding of
 * JobDeliveries.
 */
#include <stdlib.h>

#include "broker/core/base/age.h"
#include "broker/core/base/timer.h"
#include "broker/core/job/history.h"
#include "broker/core/job/source.h"
#include "broker/core/queue/pick.h"
#include "broker/core/queue/queue.h"
#include "broker/core/session/session.h"
#include "broker/util/invariant.h"

enum {
	DELIVERIES_FLUSH_BYTES = 4 << 20, /* one FX_JOBS is a frame: it stays far under
					     FRAME_BYTES_MAX (a payload has 1 MiB at most) */
	DELIVERIES_BYTES_MAX = 16 << 20,  /* of one claim */
	ENTRY_HEAD_BYTES_MAX = 1 + 10,	  /* field tag and length */
	JOBS_FIELD_TAG = 1 << 3 | 2,
};

struct job_deliveries {
	uint8_t *buf;
	size_t bytes, capacity;
	size_t bytes_before; /* flushed */
	uint32_t count;	     /* in buf */
	uint64_t source;     /* id of source_name; 0: none */
	char source_name[SOURCE_NAME_BYTES];
};

int job_deliveries_begin(struct job_deliveries **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret != NULL ? 0 : SLUICE_E_NOMEM;
}

static int flush(struct apply *a, struct job_deliveries *deliveries, uint64_t queue)
{
	struct effect effect = {.kind = FX_JOBS,
				.command = a->position,
				.gateway = a->gateway,
				.id = queue,
				.count = deliveries->count};
	void *copy;

	if (deliveries->count == 0)
		return 0;
	copy = effects_alloc(a->effects, deliveries->bytes);
	if (copy == NULL)
		return SLUICE_E_NOMEM;
	effect.payload = (struct sluice_slice){memcpy(copy, deliveries->buf, deliveries->bytes),
					       deliveries->bytes};
	deliveries->bytes_before += deliveries->bytes;
	deliveries->bytes = 0;
	deliveries->count = 0;
	return effects_add(a->effects, &effect);
}

bool job_deliveries_full(const struct job_deliveries *deliveries)
{
	return deliveries->bytes_before + deliveries->bytes >= DELIVERIES_BYTES_MAX;
}

int job_deliveries_end(struct apply *a, struct job_deliveries *deliveries, uint64_t queue)
{
	int rc = flush(a, deliveries, queue);

	free(deliveries->buf);
	free(deliveries);
	return rc;
}

static int deliveries_append(struct apply *a, struct job_deliveries *deliveries, uint64_t queue,
			     const Sluice__JobDelivery *delivery)
{
	size_t bytes = sluice__job_delivery__get_packed_size(delivery), length = bytes;
	int rc;

	if (deliveries->bytes + bytes > DELIVERIES_FLUSH_BYTES) {
		rc = flush(a, deliveries, queue);
		if (rc != 0)
			return rc;
	}
	if (deliveries->capacity - deliveries->bytes < bytes + ENTRY_HEAD_BYTES_MAX) {
		size_t capacity = 2 * (deliveries->bytes + bytes + ENTRY_HEAD_BYTES_MAX);
		uint8_t *buf = realloc(deliveries->buf, capacity);

		if (buf == NULL)
			return SLUICE_E_NOMEM;
		deliveries->buf = buf;
		deliveries->capacity = capacity;
	}
	deliveries->buf[deliveries->bytes++] = JOBS_FIELD_TAG;
	for (; length >= 0x80; length >>= 7)
		deliveries->buf[deliveries->bytes++] = (uint8_t)(length | 0x80);
	deliveries->buf[deliveries->bytes++] = (uint8_t)length;
	deliveries->bytes +=
		sluice__job_delivery__pack(delivery, deliveries->buf + deliveries->bytes);
	invariant(deliveries->bytes <= deliveries->capacity, "%zu bytes of deliveries in %zu",
		  deliveries->bytes, deliveries->capacity);
	deliveries->count++;
	return 0;
}

/* The texts of a delivery that only the history has. */
static int delivery_history(struct apply *a, const struct job *job,
			    Sluice__JobHistoryRow **ret_intent, Sluice__JobHistoryRow **ret_ref)
{
	int rc = job_history_load(a->txn, a->gateway, job->live.hist_intent, ret_intent);

	*ret_ref = NULL;
	return rc != 0 ? rc : job_history_load(a->txn, a->gateway, job->live.hist_ref, ret_ref);
}

/* The name of a job's source. The jobs of one claim usually have the same: it is looked up once. */
static int source_name(struct apply *a, struct job_deliveries *deliveries, uint64_t source,
		       char **ret)
{
	int rc = 0;

	if (source != 0 && source != deliveries->source)
		rc = source_name_get(a->txn, a->gateway, source, deliveries->source_name);
	if (source != 0 && rc == 0) {
		deliveries->source = source;
		*ret = deliveries->source_name;
	}
	return rc;
}

/* Reads only. The job is delivered as in `job`, so the claim must be made before. */
static int deliver(struct apply *a, const struct job *job, bool orphan, bool redelivered,
		   struct job_deliveries *deliveries)
{
	Sluice__JobDelivery delivery = SLUICE__JOB_DELIVERY__INIT;
	Sluice__JobHistoryRow *intent = NULL, *ref = NULL;
	Sluice__JobSubmit *meta = NULL;
	struct job_record record;
	int rc = job_record_get(a->txn, a->gateway, job->number, &record);

	if (rc == 0)
		rc = job_record_meta(&record, &meta);
	if (rc == 0)
		rc = delivery_history(a, job, &intent, &ref);
	if (rc == 0)
		rc = source_name(a, deliveries, job->live.source, &delivery.source);
	if (rc == 0) {
		delivery.job = meta->job;
		delivery.token = job->live.token;
		delivery.attempt = job->live.attempt;
		delivery.payload =
			(ProtobufCBinaryData){record.payload.len, (uint8_t *)record.payload.data};
		delivery.owner = meta->owner;
		delivery.state = (char *)job_state_name(job);
		delivery.orphan = orphan;
		delivery.intent = (job->live.flags & JOB_INTENT) != 0;
		delivery.tag = intent != NULL ? intent->evidence : delivery.tag;
		delivery.scheduler_ref = ref != NULL ? ref->scheduler_ref : delivery.scheduler_ref;
		delivery.cancel = (job->live.flags & JOB_CANCEL) != 0;
		delivery.redelivered = redelivered;
		delivery.priority = job->live.priority;
		delivery.lifecycle = job->lifecycle->config->name;
		delivery.number = job->number;
		rc = deliveries_append(a, deliveries, job->live.queue, &delivery);
	}
	sluice__job_history_row__free_unpacked(intent, NULL);
	sluice__job_history_row__free_unpacked(ref, NULL);
	sluice__job_submit__free_unpacked(meta, NULL);
	return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
}

int job_claim_ready(struct apply *a, uint64_t number, uint64_t source,
		    struct job_deliveries *deliveries)
{
	const struct job_fact fact = job_fact("claim", JOB_SOURCE_BROKER, "");
	struct job job;
	int rc = job_load(a, number, &job);

	if (rc == 0 && job.live.claim != JOB_READY)
		return store_damaged("an entry of a queue is for it, and it is not ready");
	if (rc == 0)
		rc = job_make_leased(a, &job, source);
	if (rc == 0)
		rc = job_note(a, &job, &fact);
	if (rc == 0)
		rc = job_store(a, &job);
	return rc != 0 ? rc : deliver(a, &job, false, false, deliveries);
}

/* Reads the records of a delivery that belong to this job alone. */
static int read_own(struct apply *a, uint64_t number)
{
	Sluice__JobHistoryRow *intent = NULL, *ref = NULL;
	Sluice__JobSubmit *meta = NULL;
	struct job_record record;
	struct job job = {0};
	int rc = job_live_get(a->txn, a->gateway, number, &job.live);

	if (rc == 0)
		rc = job_record_get(a->txn, a->gateway, number, &record);
	if (rc == 0)
		rc = job_record_meta(&record, &meta);
	if (rc == 0)
		rc = delivery_history(a, &job, &intent, &ref);
	sluice__job_history_row__free_unpacked(intent, NULL);
	sluice__job_history_row__free_unpacked(ref, NULL);
	sluice__job_submit__free_unpacked(meta, NULL);
	return rc;
}

int job_report_if_damaged(struct apply *a, uint64_t queue, uint64_t number, bool *ret_damaged)
{
	int rc = read_own(a, number);

	*ret_damaged = rc == SLUICE_E_CORRUPT;
	return *ret_damaged ? claim_report_damaged(a, queue, number) : rc;
}

static int take_over(struct apply *a, uint64_t number, uint64_t source,
		     struct job_deliveries *deliveries)
{
	const struct job_fact fact = job_fact("takeover", JOB_SOURCE_BROKER, "");
	struct job job;
	int rc = job_load(a, number, &job);

	if (rc == 0 && job.live.claim != JOB_ORPHANED)
		return store_damaged("its content is not valid");
	/* a holder that released the job while its session lives */
	if (rc == 0 && job.live.holder != a->session)
		rc = job_notify_holder(a, &job, FX_LEASE_LOST);
	if (rc == 0)
		rc = job_claim_end(a, &job, false);
	if (rc == 0)
		rc = job_make_leased(a, &job, source);
	if (rc == 0)
		rc = job_note(a, &job, &fact);
	if (rc == 0)
		rc = job_store(a, &job);
	return rc != 0 ? rc : deliver(a, &job, true, false, deliveries);
}

/* The orphan with the lowest number in a queue that waits for the source (0: for any consumer);
 * NOT_FOUND. */
static int orphan_of(struct apply *a, uint64_t queue, uint64_t source, uint64_t *ret)
{
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct key from;
	int rc;

	job_key_orphan(&from, a->gateway, queue, source, 0);
	rc = store_scan_begin(a->txn, STORE_OWNED, key_slice(&from), &scan);
	if (rc != 0)
		return rc;
	rc = store_scan_next(scan, &found, &value);
	if (rc == 0 && !job_key_orphan_in(found, a->gateway, queue, source, ret))
		rc = SLUICE_E_NOT_FOUND;
	store_scan_end(scan);
	return rc;
}

/* The next orphan for a claim: of its own source, or of none (*ret_source is 0). */
static int orphan_first(struct apply *a, const struct cmd_claim *m, uint64_t *ret,
			uint64_t *ret_source)
{
	int rc = SLUICE_E_NOT_FOUND;

	*ret_source = m->source;
	if (m->source != 0)
		rc = orphan_of(a, m->queue, m->source, ret);
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	*ret_source = 0;
	return orphan_of(a, m->queue, 0, ret);
}

int job_orphan_skip(struct apply *a, const struct cmd_claim *m, bool *ret_skipped)
{
	struct key key;
	uint64_t number, source;
	int rc = orphan_first(a, m, &number, &source);

	if (rc == 0)
		rc = job_report_if_damaged(a, m->queue, number, ret_skipped);
	if (rc == 0 && *ret_skipped) {
		job_key_orphan(&key, a->gateway, m->queue, source, number);
		rc = store_del(a->txn, STORE_OWNED, key_slice(&key));
	}
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int job_claim_orphans(struct apply *a, const struct cmd_claim *m, uint32_t max,
		      struct job_deliveries *deliveries, uint32_t *ret_count, bool *ret_more)
{
	int rc = 0;

	for (*ret_count = 0; *ret_count < max && !job_deliveries_full(deliveries); ++*ret_count) {
		uint64_t number, source;

		rc = orphan_first(a, m, &number, &source);
		if (rc == 0)
			rc = take_over(a, number, m->source, deliveries);
		if (rc != 0)
			break;
	}
	*ret_more = rc == 0;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

struct redelivery {
	const struct cmd_claim *m;
	uint32_t max;
	uint32_t count;
	uint32_t checked;
	uint64_t last; /* last checked */
	struct job_deliveries *deliveries;
};

enum { REDELIVERY_ENOUGH = 1 };

static int redeliver_one(struct apply *a, uint64_t number, uint64_t sub, void *user)
{
	struct redelivery *r = user;
	struct job job;
	int rc;

	if (r->count == r->max || job_deliveries_full(r->deliveries))
		return REDELIVERY_ENOUGH;
	r->checked++;
	r->last = number;
	if (sub != r->m->queue)
		return 0;
	rc = job_load(a, number, &job);
	if (rc == 0 && r->m->resume_until != 0 && job.live.token > r->m->resume_until)
		return 0;
	/* For another consumer of this session, with that source. */
	if (rc == 0 && job.live.source != 0 && job.live.source != r->m->source)
		return 0;
	if (rc == 0)
		rc = deliver(a, &job, false, true, r->deliveries);
	if (rc == 0)
		r->count++;
	/* A lease of a job without a live record is damage, like one that cannot be read. */
	return rc == SLUICE_E_CORRUPT || rc == SLUICE_E_NOT_FOUND
		       ? claim_report_damaged(a, r->m->queue, number)
		       : rc;
}

int job_redeliver(struct apply *a, const struct cmd_claim *m, uint32_t max,
		  struct job_deliveries *deliveries, uint32_t *ret_count, uint64_t *ret_after)
{
	struct redelivery r = {.m = m, .max = max, .deliveries = deliveries};
	int rc = session_owned_each(a, a->session, OWNED_JOB, m->resume_after + 1, RESUME_CHECK_MAX,
				    redeliver_one, &r);

	*ret_count = r.count;
	*ret_after = rc == REDELIVERY_ENOUGH || r.checked == RESUME_CHECK_MAX ? r.last : 0;
	return rc == REDELIVERY_ENOUGH ? 0 : rc;
}

/* session.c removes the owned entry itself, so the lease is dropped here without disowning. */
/* The end of its session writes a job's record, its history and an event. */
enum { END_WORK = 4 };

int job_queue_find(struct apply *a, uint64_t number, uint64_t *ret)
{
	struct job_live live;
	int rc = job_live_get(a->txn, a->gateway, number, &live);

	*ret = rc == 0 ? live.queue : 0;
	return rc;
}

int job_session_ended(struct apply *a, uint64_t session, uint64_t queue, uint64_t number,
		      uint32_t *io_work, bool *ret_done)
{
	const struct job_fact fact =
		job_fact("orphan", JOB_SOURCE_BROKER, "the holder's session ended");
	struct job job;
	int rc = job_load(a, number, &job);

	*io_work -= *io_work < END_WORK ? *io_work : END_WORK;
	*ret_done = true;
	/* Damaged: the job stays as it is, and the session's other jobs become orphans. */
	if (rc == SLUICE_E_CORRUPT)
		return claim_report_damaged(a, queue, number);
	if (rc != 0 || job.live.claim != JOB_LEASED || job.live.holder != session)
		return rc; /* another session holds it */
	rc = queue_job_count(a, job.live.queue, -1, 0);
	if (rc == 0)
		rc = job_make_orphan(a, &job);
	if (rc == 0)
		rc = job_note(a, &job, &fact);
	return rc != 0 ? rc : job_store(a, &job);
}

/* ---- release ---- */

int job_release_due_fire(struct apply *a, uint64_t number, uint64_t attempt, uint32_t *io_work)
{
	struct job job;
	int rc = job_live_get(a->txn, a->gateway, number, &job.live);

	(void)io_work; /* one record, which tick counted */
	if (rc != 0)   /* finished and deleted since */
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	if (job.live.claim != JOB_GATED || job.live.due_mono_ms > a->mono_ms)
		return 0;
	if (age_due_doubted(a, job.live.due_mono_ms))
		return timer_set(a, age_doubt(a), TIMER_JOB_RELEASE_DUE, number, attempt);
	rc = job_load(a, number, &job);
	if (rc == 0 && age_due(a, job.live.due_mono_ms) > a->mono_ms) {
		job.live.due_mono_ms = age_due(a, job.live.due_mono_ms);
		rc = timer_set(a, job.live.due_mono_ms, TIMER_JOB_RELEASE_DUE, number, attempt);
		return rc != 0 ? rc : job_store(a, &job);
	}
	if (rc == 0)
		rc = job_claim_end(a, &job, false);
	if (rc == 0)
		rc = job_make_ready(a, &job);
	return rc != 0 ? rc : job_store(a, &job);
}

int job_give_back(struct apply *a, struct job *job, uint32_t delay_ms, const struct job_fact *fact)
{
	int rc = job_note(a, job, fact);

	if (rc == 0)
		rc = job_claim_end(a, job, false);
	if (rc == 0)
		rc = delay_ms > 0 ? job_make_delayed(a, job, a->mono_ms + delay_ms)
				  : job_make_ready(a, job);
	return rc;
}
