/* SPDX-License-Identifier: Apache-2.0
 * The broker's accounts except the stream: the ledger, read in pages, the audit and the quarantine.
 * Also reads the last starts. */
#include <stdio.h>
#include <string.h>

#include "replay.h"

static void read_ledger(struct replay *replay)
{
	sluice_job_filter filter = SLUICE_JOB_FILTER(.max = 500);
	bool more = true;

	while (more) {
		sluice_reply *reply = NULL;
		sluice_job_info job = SLUICE_JOB_INFO();
		int rc = sluice_job_list(replay->client, &filter,
					 &SLUICE_CALL(.deadline_ms = 30000), &reply);

		if (rc != 0)
			fail(replay, "the ledger cannot be listed: %s",
			     reply != NULL ? sluice_reply_text(reply) : sluice_error_text(rc));
		for (size_t i = 0; sluice_reply_job(reply, i, &job); i++) {
			struct plan *plan = plan_find(replay, job.job);

			filter.after_number = job.number;
			if (plan == NULL)
				continue;
			plan->ledger_rows++;
			plan->ledger_terminal = job.terminal;
			(void)snprintf(plan->ledger_state, sizeof(plan->ledger_state), "%s",
				       job.state);
		}
		more = sluice_reply_more(reply);
		sluice_reply_free(reply);
	}
}

static void read_audit(struct replay *replay)
{
	uint64_t after = 0;

	do {
		sluice_reply *reply = NULL;
		sluice_job_audit_info audit = SLUICE_JOB_AUDIT_INFO();
		int rc = sluice_job_audit(replay->client,
					  &SLUICE_JOB_AUDIT_SPEC(.after_number = after),
					  &SLUICE_CALL(.deadline_ms = 30000), &reply);

		if (rc != 0)
			fail(replay, "the audit failed: %s", sluice_error_text(rc));
		(void)sluice_reply_audit(reply, &audit);
		for (size_t i = 0; sluice_reply_line(reply, i) != NULL; i++)
			replay->findings++;
		after = audit.next_number;
		sluice_reply_free(reply);
	} while (after != 0);
}

static void read_quarantine(struct replay *replay)
{
	sluice_reply *reply = NULL;
	sluice_quarantine_row row = SLUICE_QUARANTINE_ROW();

	if (sluice_quarantine_list(replay->client, NULL, 0, 0, &SLUICE_CALL(.deadline_ms = 30000),
				   &reply) == 0)
		while (sluice_reply_quarantine(reply, replay->quarantined, &row))
			replay->quarantined++;
	sluice_reply_free(reply);
}

void verify_read(struct replay *replay)
{
	read_ledger(replay);
	starts_read(replay);
	read_audit(replay);
	read_quarantine(replay);
}
