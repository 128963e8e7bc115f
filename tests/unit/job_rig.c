/* SPDX-License-Identifier: Apache-2.0
 * See job_rig.h. */
#include "broker/core/job/quarantine.h"
#include "tests/unit/job_rig.h"

#include <criterion/criterion.h>
#include <string.h>

struct outcome rig_apply(struct rig *rig, uint16_t type, uint64_t session, const void *body)
{
	return world_apply(&rig->world, type, session, body);
}

uint64_t rig_session(struct rig *rig)
{
	struct cmd_session_open open = {.client = world_text("test"), .timeout_ms = 30000};

	return world_must(&rig->world, COMMAND_SESSION_OPEN, 0, &open).id;
}

void rig_session_end(struct rig *rig, uint64_t session)
{
	struct cmd_session_expire expire = {session};

	world_must(&rig->world, COMMAND_SESSION_EXPIRE, 0, &expire);
}

void rig_advance(struct rig *rig, uint64_t ms)
{
	world_wait(&rig->world, ms);
	world_ticks(&rig->world, 1000);
}

void rig_open(struct rig *rig)
{
	Sluice__QueueConfig queue = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate queue_create = SLUICE__QUEUE_CREATE__INIT;

	memset(rig, 0, sizeof(*rig));
	world_open(&rig->world, WORLD_MEM);
	world_stream(&rig->world, RIG_STREAM, "job.>", 0, 0, 0);
	queue.name = (char *)RIG_QUEUE;
	queue.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	queue_create.config = &queue;
	world_must(&rig->world, COMMAND_QUEUE_CREATE, 0, &queue_create);
	rig->queue = world_queue_ref(&rig->world, RIG_QUEUE).id;
	rig->session = rig_session(rig);
}

void rig_close(struct rig *rig)
{
	rig_audit(rig);
	sluice__job_deliveries__free_unpacked(rig->deliveries, NULL);
	world_close(&rig->world);
}

/* ---- commands ---- */

struct outcome rig_submit(struct rig *rig, const char *id)
{
	Sluice__JobSubmit m = SLUICE__JOB_SUBMIT__INIT;

	m.job = (char *)id;
	m.queue = (char *)RIG_QUEUE;
	m.owner = (char *)"ada";
	m.payload = (ProtobufCBinaryData){4, (uint8_t *)"work"};
	return rig_apply(rig, COMMAND_JOB_SUBMIT, rig->session, &m);
}

size_t rig_claim(struct rig *rig, uint64_t session, uint32_t max, uint8_t flags)
{
	return rig_claim_for(rig, session, max, flags, 0);
}

size_t rig_claim_for(struct rig *rig, uint64_t session, uint32_t max, uint8_t flags,
		     uint64_t source)
{
	struct cmd_claim claim = {.queue = rig->queue,
				  .max = max,
				  .flags = flags,
				  .source = source};
	struct outcome out = rig_apply(rig, COMMAND_CLAIM, session, &claim);
	const struct effect *jobs = NULL;

	cr_assert_eq(out.code, 0, "%s", out.text);
	for (size_t i = 0; i < effects_count(rig->world.effects); i++) {
		if (effects_at(rig->world.effects, i)->kind == FX_JOBS) {
			cr_assert_null(jobs, "a small claim has one delivery");
			jobs = effects_at(rig->world.effects, i);
		}
	}
	sluice__job_deliveries__free_unpacked(rig->deliveries, NULL);
	rig->deliveries = jobs != NULL
				  ? sluice__job_deliveries__unpack(NULL, jobs->payload.len,
								   jobs->payload.data)
				  : sluice__job_deliveries__unpack(NULL, 0, (const uint8_t *)"");
	cr_assert_not_null(rig->deliveries, "deliveries are a JobDeliveries message");
	cr_assert_eq(rig->deliveries->n_jobs, out.count);
	cr_assert_eq(jobs != NULL ? jobs->count : 0, out.count);
	return rig->deliveries->n_jobs;
}

struct outcome rig_intent(struct rig *rig, const char *id, uint64_t token, uint32_t attempt,
			  const char *tag)
{
	Sluice__JobIntent m = SLUICE__JOB_INTENT__INIT;

	m.job = (char *)id;
	m.token = token;
	m.attempt = attempt;
	m.tag = (char *)tag;
	return rig_apply(rig, COMMAND_JOB_INTENT, rig->session, &m);
}

struct outcome rig_report(struct rig *rig, const char *id, uint64_t token, uint32_t attempt,
			  const char *state)
{
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;

	m.job = (char *)id;
	m.token = token;
	m.attempt = attempt;
	m.state = (char *)state;
	m.source = (char *)"test";
	return rig_apply(rig, COMMAND_JOB_REPORT, rig->session, &m);
}

struct outcome rig_release(struct rig *rig, const char *id, uint64_t token, uint32_t delay_ms)
{
	Sluice__JobRelease m = SLUICE__JOB_RELEASE__INIT;

	m.job = (char *)id;
	m.token = token;
	m.delay_ms = delay_ms;
	return rig_apply(rig, COMMAND_JOB_RELEASE, rig->session, &m);
}

struct outcome rig_cancel(struct rig *rig, const char *id)
{
	Sluice__JobCancel m = SLUICE__JOB_CANCEL__INIT;

	m.job = (char *)id;
	m.reason = (char *)"not needed";
	return rig_apply(rig, COMMAND_JOB_CANCEL, rig->session, &m);
}

struct outcome rig_reset(struct rig *rig, const char *id, bool force)
{
	Sluice__JobReset m = SLUICE__JOB_RESET__INIT;

	m.job = (char *)id;
	m.force = force;
	return rig_apply(rig, COMMAND_JOB_RESET, rig->session, &m);
}

/* ---- reads ---- */

const Sluice__Reply *rig_query(struct rig *rig, const Sluice__Request *request)
{
	rig->reply = world_query(&rig->world, request);
	return rig->reply;
}

const Sluice__JobInfo *rig_show(struct rig *rig, const char *id)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobShow show = SLUICE__JOB_SHOW__INIT;

	show.job = (char *)id;
	show.payload = true;
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW;
	request.job_show = &show;
	rig_query(rig, &request);
	cr_assert_eq(rig->reply->n_jobs, 1, "job %s: %s", id, rig->reply->text);
	return rig->reply->jobs[0];
}

size_t rig_history(struct rig *rig, const char *id)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobHistory history = SLUICE__JOB_HISTORY__INIT;

	history.job = (char *)id;
	request.op_case = SLUICE__REQUEST__OP_JOB_HISTORY;
	request.job_history = &history;
	return rig_query(rig, &request)->n_history;
}

size_t rig_quarantine(struct rig *rig, const char *id)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QuarantineList list = SLUICE__QUARANTINE_LIST__INIT;

	list.job = (char *)id;
	list.max = 1000;
	request.op_case = SLUICE__REQUEST__OP_QUARANTINE_LIST;
	request.quarantine_list = &list;
	return rig_query(rig, &request)->n_quarantine;
}

void rig_audit(struct rig *rig)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__Audit audit = SLUICE__AUDIT__INIT;

	/* Tests let hours pass, so the audit may report jobs that make no progress. */
	audit.silent_ms = audit.orphan_ms = UINT64_MAX;
	request.op_case = SLUICE__REQUEST__OP_AUDIT;
	request.audit = &audit;
	rig_query(rig, &request);
	cr_assert_not_null(rig->reply->audited, "%s", rig->reply->text);
	cr_assert_eq(rig->reply->audited->n_findings, 0, "audit: %s",
		     rig->reply->audited->n_findings > 0 ? rig->reply->audited->findings[0] : "");
}

const Sluice__QueueInfo *rig_queue_show(struct rig *rig)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueShow show = SLUICE__QUEUE_SHOW__INIT;

	show.name = (char *)RIG_QUEUE;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_SHOW;
	request.queue_show = &show;
	rig_query(rig, &request);
	cr_assert_eq(rig->reply->n_queues, 1, "%s", rig->reply->text);
	return rig->reply->queues[0];
}

size_t rig_effects(const struct rig *rig, enum effect_kind kind)
{
	return world_effects(&rig->world, kind);
}

uint64_t rig_events(struct rig *rig)
{
	struct stream_ref stream = world_stream_ref(&rig->world, RIG_STREAM);

	return stream.next_offset - stream.first_offset;
}

Sluice__JobSubmit rig_submit_of(const char *id)
{
	Sluice__JobSubmit m = SLUICE__JOB_SUBMIT__INIT;

	m.job = (char *)id;
	m.queue = (char *)RIG_QUEUE;
	m.owner = (char *)"ada";
	m.payload = (ProtobufCBinaryData){4, (uint8_t *)"work"};
	return m;
}

void rig_report_fill(Sluice__JobReport *m, const char *id, const char *state, uint64_t seen_ms)
{
	sluice__job_report__init(m);
	m->job = (char *)(uintptr_t)id;
	m->attempt = 1;
	m->state = (char *)(uintptr_t)state;
	m->source = (char *)"test";
	m->evidence = (char *)"what was seen";
	m->seen_time_ms = seen_ms;
}

bool rig_missing(struct rig *rig, const char *id)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobShow show = SLUICE__JOB_SHOW__INIT;

	show.job = (char *)id;
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW;
	request.job_show = &show;
	return rig_query(rig, &request)->code == SLUICE_E_NOT_FOUND;
}
