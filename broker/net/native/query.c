/* SPDX-License-Identifier: Apache-2.0
 * The end of a read and of a wait: its reply is sent, or it is refused. */
#include "broker/net/native/native.h"

void native_read_done(struct conn *conn, uint64_t corr, const struct read_result *result)
{
	if (result->rc != 0) {
		native_refuse_shown(conn, (uint32_t)corr, result->number, result->rc, "%s",
				    result->text);
		return;
	}
	if (result->code != 0)
		native_log_refused(conn, corr, result->code, result->text);
	door_answer(conn, corr, 0, result->reply, result->len, result->number);
}

void native_answer(struct conn *conn, uint64_t corr, int code, const uint8_t *reply, size_t len)
{
	(void)code; /* the Reply has it */
	if (!door_is_ending(conn))
		native_frame(conn, FRAME_REPLY, (uint32_t)corr, reply, len);
}

void native_waited(struct conn *conn, uint64_t corr, const struct job_waited *result)
{
	if (door_is_ending(conn))
		return;
	if (result->reply != NULL)
		native_frame(conn, FRAME_REPLY, (uint32_t)corr, result->reply, result->len);
	else
		native_refuse(conn, (uint32_t)corr, result->code, "%s", result->text);
}
