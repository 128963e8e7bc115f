/* SPDX-License-Identifier: Apache-2.0
 * Time, the lock, the wake-up of the loop, events for the application, and waiting. */
#ifndef SLUICE_CLIENT_BASE_LOOP_H
#define SLUICE_CLIENT_BASE_LOOP_H

#include "client/base/client.h"

enum { MEMORY_MS = 20 }; /* delay of a retry after lack of memory */

uint64_t now_ms(void);
/* 0: the configured one; negative: none (UINT64_MAX). */
uint64_t deadline_of(const sluice_client *client, int deadline_ms);
void client_lock(sluice_client *client);
void client_unlock(sluice_client *client);
/* This thread runs the client's loop from now on; returns the previous client, to be restored. */
const sluice_client *loop_enter(const sluice_client *client);
bool client_on_loop(const sluice_client *client);
extern const char from_a_callback[];			  /* text of a refusal to block there */
void client_wake(sluice_client *client);		  /* the loop has something to do */
void client_retry(sluice_client *client, uint64_t at_ms); /* the loop also turns at that time */
void client_notice(sluice_client *client, const sluice_notice *notice);
/* Waits, with the lock held, until *flag or the deadline; runs the loop itself in caller-loop mode.
 * False: the deadline passed. */
bool client_wait(sluice_client *client, const bool *flag, uint64_t deadline_ms);
/* Waits once: until something changed, the deadline or most_ms. The caller checks its condition
 * again. */
void client_wait_some(sluice_client *client, uint64_t deadline_ms, uint32_t most_ms);
/* A thread of the library: signals of the application are blocked. 0, or the error. */
int thread_start(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *user), void *user);

#endif
