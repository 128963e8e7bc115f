/* SPDX-License-Identifier: Apache-2.0
 *
 * The settings of the local scheduler.
 */
#ifndef SLUICE_LOCAL_SETTINGS_H
#define SLUICE_LOCAL_SETTINGS_H

#include "state.h"

/* Reads and checks them. INVAL, LIMIT or NOT_FOUND: the log says which setting, and what was
 * expected. */
int settings_read(struct service *service);

#endif
