/* SPDX-License-Identifier: Apache-2.0
 * Building blocks of the typed operations' requests. */
#ifndef SLUICE_CLIENT_CALL_REQUEST_H
#define SLUICE_CLIENT_CALL_REQUEST_H

#include "sluice.pb-c.h"
#include "sluice/client.h"

/* protobuf-c's strings and bytes are not const; nothing here writes to them. */
static inline char *wire_text(const char *value)
{
	return (char *)(uintptr_t)(value != NULL ? value : "");
}

static inline ProtobufCBinaryData wire_bytes(sluice_slice value)
{
	return (ProtobufCBinaryData){value.len, (uint8_t *)(uintptr_t)value.data};
}

/* Common to an operation and its counterpart in a transaction; of a report, everything but the
 * job's number, which no transaction sends. */
void job_submit_fill(Sluice__JobSubmit *m, const sluice_job_spec *spec);
void job_report_fill(Sluice__JobReport *m, const sluice_job_report_spec *spec);

#define REQUEST(OP, member, message)                     \
	Sluice__Request request = SLUICE__REQUEST__INIT; \
	request.op_case = SLUICE__REQUEST__OP_##OP;      \
	request.member = &(message)

#endif
