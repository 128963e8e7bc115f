/* SPDX-License-Identifier: Apache-2.0
 * Lifecycles that queues and jobs use: creation, growth, deletion. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/unit/job_rig.h"

static struct outcome lifecycle_make(struct rig *rig, uint16_t type, bool more)
{
	Sluice__LifecycleState states[4] = {SLUICE__LIFECYCLE_STATE__INIT,
					    SLUICE__LIFECYCLE_STATE__INIT,
					    SLUICE__LIFECYCLE_STATE__INIT,
					    SLUICE__LIFECYCLE_STATE__INIT};
	Sluice__LifecycleState *list[4] = {&states[0], &states[1], &states[2], &states[3]};
	char *after_new[] = {(char *)"RUN"}, *after_run[] = {(char *)"DONE", (char *)"LOST"};
	Sluice__LifecycleConfig config = SLUICE__LIFECYCLE_CONFIG__INIT;
	Sluice__LifecycleCreate create = SLUICE__LIFECYCLE_CREATE__INIT;
	Sluice__LifecycleAlter alter = SLUICE__LIFECYCLE_ALTER__INIT;

	states[0].name = (char *)"NEW";
	states[0].next = after_new;
	states[0].n_next = 1;
	states[1].name = (char *)"RUN";
	states[1].next = after_run;
	states[1].n_next = more ? 2 : 1;
	states[2].name = (char *)"DONE";
	states[2].terminal = true;
	states[3].name = (char *)"LOST";
	states[3].terminal = true;
	config.name = (char *)"small";
	config.states = list;
	config.n_states = more ? 4 : 3;
	config.cancelled = config.failed = (char *)"DONE";
	create.config = alter.config = &config;
	return rig_apply(rig, type, 0,
			 type == COMMAND_LIFECYCLE_CREATE ? (const void *)&create
							  : (const void *)&alter);
}

static struct outcome lifecycle_remove(struct rig *rig, const char *name)
{
	Sluice__LifecycleDelete m = SLUICE__LIFECYCLE_DELETE__INIT;

	m.name = (char *)name;
	return rig_apply(rig, COMMAND_LIFECYCLE_DELETE, 0, &m);
}

static const Sluice__Reply *lifecycles(struct rig *rig)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__LifecycleList list = SLUICE__LIFECYCLE_LIST__INIT;

	request.op_case = SLUICE__REQUEST__OP_LIFECYCLE_LIST;
	request.lifecycle_list = &list;
	return rig_query(rig, &request);
}

Test(job_lifecycle_use, a_lifecycle_is_extended_while_jobs_use_it_and_deleted_when_none_does)
{
	Sluice__JobRetention keep = SLUICE__JOB_RETENTION__INIT;
	Sluice__JobSubmit m = rig_submit_of("j");
	struct outcome out;
	struct rig rig;

	rig_open(&rig);
	m.lifecycle = (char *)"small";
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_ALTER, false).code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_CREATE, false).code, 0);
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_CREATE, false).code, SLUICE_E_EXISTS);
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "NEW");
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "RUN").disposition, SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "LOST").disposition,
		     SLUICE__DISPOSITION__QUARANTINED);
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_ALTER, true).code, 0);
	out = lifecycle_make(&rig, COMMAND_LIFECYCLE_ALTER, false);
	cr_assert(out.code == SLUICE_E_IN_USE && strstr(out.text, "LOST") != NULL, "%s", out.text);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, SLUICE_E_IN_USE);
	cr_assert_eq(lifecycles(&rig)->n_lifecycles, 2);
	cr_assert_str_eq(rig.reply->lifecycles[1]->config->name, "small");
	cr_assert_eq(rig.reply->lifecycles[1]->jobs, 1);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "LOST").disposition, SLUICE__DISPOSITION__APPLIED,
		     "the new state is legal at once");
	keep.keep_ms = 1000;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	rig_advance(&rig, 2000);
	cr_assert_eq(lifecycles(&rig)->lifecycles[1]->jobs, 0);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, 0);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(lifecycle_remove(&rig, "airavata").code, SLUICE_E_IN_USE,
		     "every queue's default");
	rig_close(&rig);
}

Test(job_lifecycle_use, a_queue_names_a_lifecycle_that_exists_and_keeps_it)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__QueueAlter alter = SLUICE__QUEUE_ALTER__INIT;
	struct outcome out;
	struct rig rig;

	rig_open(&rig);
	config.name = (char *)"small-jobs";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	config.lifecycle = (char *)"small";
	create.config = alter.config = &config;
	out = rig_apply(&rig, COMMAND_QUEUE_CREATE, 0, &create);
	cr_assert_eq(out.code, SLUICE_E_NOT_FOUND);
	cr_assert_str_eq(out.text, "lifecycle 'small' does not exist; create it first");
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_CREATE, false).code, 0);
	cr_assert_eq(rig_apply(&rig, COMMAND_QUEUE_CREATE, 0, &create).code, 0);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, SLUICE_E_IN_USE);
	config.lifecycle = (char *)"smaller";
	cr_assert_eq(rig_apply(&rig, COMMAND_QUEUE_ALTER, 0, &alter).code, SLUICE_E_NOT_FOUND);
	config.lifecycle = (char *)"";
	cr_assert_eq(rig_apply(&rig, COMMAND_QUEUE_ALTER, 0, &alter).code, 0);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, 0);
	rig_close(&rig);
}

Test(job_lifecycle_use, a_cancel_that_the_lifecycle_has_no_transition_for_only_sets_the_flag)
{
	Sluice__JobSubmit m = rig_submit_of("j");
	struct rig rig;

	rig_open(&rig);
	m.lifecycle = (char *)"small"; /* NEW leads to RUN only; DONE is its cancelled state */
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_CREATE, false).code, 0);
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	cr_assert(!rig_cancel(&rig, "j").terminal);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "NEW");
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	cr_assert(rig.deliveries->jobs[0]->cancel);
	cr_assert_eq(rig_intent(&rig, "j", rig.deliveries->jobs[0]->token, 1, "t").code,
		     SLUICE_E_CANCELLED);
	rig_close(&rig);
}
