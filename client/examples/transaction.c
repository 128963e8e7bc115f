/* SPDX-License-Identifier: Apache-2.0
 *
 * Takes one notice from queue "finished" and archives the job that it names. The notice is
 * acknowledged, the event is published and the job is ended in one commit: all of it or nothing.
 *
 *   cc transaction.c $(pkg-config --cflags --libs sluice) -o transaction
 *   ./transaction 127.0.0.1:7584
 *
 * The key of a notice is the job's id, its body the exit code. If this process dies before the
 * commit, the notice comes again; after the commit it does not. If the connection breaks before the
 * answer, the library sends the commit again, and the broker gives the first answer: nothing is
 * done twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sluice/client.h>

static int archive(sluice_client *client, const sluice_delivery_view *notice, sluice_reply **ret)
{
	char job[256], subject[300], code[16];
	sluice_txn *txn = sluice_txn_create();
	int rc = txn != NULL ? 0 : SLUICE_E_NOMEM;

	(void)snprintf(job, sizeof(job), "%.*s", (int)notice->key.len,
		       (const char *)notice->key.data);
	(void)snprintf(code, sizeof(code), "%.*s", (int)notice->body.len,
		       (const char *)notice->body.data);
	(void)snprintf(subject, sizeof(subject), "archive.%s", job);

	sluice_message event = SLUICE_MESSAGE(.subject = subject, .body = notice->body);
	sluice_job_report_spec end =
		SLUICE_JOB_REPORT_SPEC(.job = job, .attempt = 1, .source = "archiver",
				       .state = atoi(code) == 0 ? "COMPLETE" : "FAILED",
				       .exited = true, .exit_code = atoi(code));

	if (rc == 0)
		rc = sluice_txn_ack(txn, "finished", notice->token, notice->seq, 1);
	if (rc == 0)
		rc = sluice_txn_publish(txn, &event);
	if (rc == 0)
		rc = sluice_txn_job_report(txn, &end);
	if (rc == 0)
		rc = sluice_txn_commit(client, txn, NULL, ret);
	sluice_txn_destroy(txn);
	if (rc == 0)
		(void)printf("%s is archived\n", job);
	return rc;
}

/* Nothing of a refused transaction is done, so the notice is still held: give it back. */
static int handle(sluice_client *client, sluice_sub *sub, const sluice_delivery_view *notice)
{
	sluice_reply *reply = NULL;
	int rc = archive(client, notice, &reply);

	if (rc != 0) {
		(void)fprintf(stderr, "transaction: operation %u: %s\n",
			      sluice_reply_failed_op(reply), sluice_reply_text(reply));
		if (rc != SLUICE_E_STALE_TOKEN) /* the lease has ended: the notice is elsewhere */
			(void)sluice_item_nack(sub, notice->token, notice->seq, 0,
					       sluice_reply_text(reply), NULL, NULL);
	}
	sluice_reply_free(reply);
	return rc;
}

int main(int argc, char **argv)
{
	const sluice_consume_spec spec = SLUICE_CONSUME_SPEC(.queue = "finished", .credit = 1);
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_sub *sub = NULL;
	sluice_delivery *notice = NULL;
	int rc = config != NULL ? 0 : SLUICE_E_NOMEM;

	if (rc == 0)
		rc = sluice_config_set(config, "address", argc > 1 ? argv[1] : "127.0.0.1:7584");
	if (rc == 0)
		rc = sluice_open(config, NULL, NULL, &client);
	if (rc == 0)
		rc = sluice_consume(client, &spec, NULL, &sub);
	if (rc == 0)
		rc = sluice_sub_next(sub, 10000, &notice);
	if (rc == 0 && sluice_delivery_get(notice)->kind == SLUICE_DELIVERY_ITEM)
		rc = handle(client, sub, sluice_delivery_get(notice));
	else if (rc != 0)
		(void)fprintf(stderr, "transaction: %s\n", sluice_error_text(rc));
	sluice_delivery_free(notice);
	(void)sluice_sub_close(sub, 5000);
	(void)sluice_close(client, true, 5000);
	sluice_config_destroy(config);
	return sluice_error_exit_code(rc);
}
