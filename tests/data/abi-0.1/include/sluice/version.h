/* SPDX-License-Identifier: Apache-2.0
 * Versions of the headers and of the native protocol (SPEC.md); plugin.h has that of its ABI. */
#ifndef SLUICE_VERSION_H
#define SLUICE_VERSION_H

#define SLUICE_VERSION_MAJOR 0
#define SLUICE_VERSION_MINOR 1
#define SLUICE_VERSION_PATCH 0

#define SLUICE_PROTOCOL_VERSION 1
#define SLUICE_PROTOCOL_VERSION_MIN 1

#define SLUICE_DEFAULT_PORT 7584

#endif
