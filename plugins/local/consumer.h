/* SPDX-License-Identifier: Apache-2.0
 *
 * The subscription to the queue: opened when all it needs is there, and again after each loss.
 */
#ifndef SLUICE_LOCAL_CONSUMER_H
#define SLUICE_LOCAL_CONSUMER_H

#include "state.h"

/* Starts the next try when it is due. */
void consumer_turn(struct service *service, uint64_t now_ms);
/* The subscription or the client has ended, or a step failed: another try after a pause, or the end
 * of the service when another try would end the same way. */
void consumer_lost(struct service *service, int code, const char *why);

#endif
