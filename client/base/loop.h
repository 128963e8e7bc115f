/* SPDX-License-Identifier: Apache-2.0
 * Time, the lock, the wake-up of the loop, events for the application, and waiting. */
#ifndef SLUICE_CLIENT_BASE_LOOP_H
#define SLUICE_CLIENT_BASE_LOOP_H

#include "client/base/client.h"

enum { MEMORY_MS = 20 }; /* what lacked memory is tried again after this */

uint64_t now_ms(void);
/* 0: the configured one; negative: none (UINT64_MAX). */
uint64_t deadline_of(const sluice_client *client, int deadline_ms);
void client_lock(sluice_client *client);
void client_unlock(sluice_client *client);
/* This thread is in the client's loop from now on; returns whose it was in, for the way back. */
const sluice_client *loop_enter(const sluice_client *client);
bool client_on_loop(const sluice_client *client);
extern const char from_a_callback[];			  /* why what would wait is refused there */
void client_wake(sluice_client *client);		  /* the loop has something to do */
void client_retry(sluice_client *client, uint64_t at_ms); /* the loop turns at that time, too */
void client_notice(sluice_client *client, const sluice_notice *notice);
/* Waits, with the lock held, until *flag or the deadline; runs the loop itself in caller-loop mode.
 * False: the deadline passed. */
bool client_wait(sluice_client *client, const bool *flag, uint64_t deadline_ms);
/* One wait: until something changed, the deadline or most_ms. The caller checks again. */
void client_wait_some(sluice_client *client, uint64_t deadline_ms, uint32_t most_ms);
/* A thread of the library: no signal of the application comes to it. 0, or why there is none. */
int thread_start(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *user), void *user);

#endif
