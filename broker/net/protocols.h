/* SPDX-License-Identifier: Apache-2.0
 *
 * Registry of protocols: the tables that a port may be opened for, with the listener that
 * net_listen and net_adopt accept for each. A protocol is one line here, one folder, and the port
 * that main.c opens for it. For net.h, and for the file that defines each table.
 */
#ifndef SLUICE_NET_PROTOCOLS_H
#define SLUICE_NET_PROTOCOLS_H

struct protocol_ops; /* broker/net/conn/protocol.h */

extern const struct protocol_ops native_protocol; /* native/; listener: NULL */
extern const struct protocol_ops
	foreign_protocol; /* foreign/; a plugin's struct sluice_listener_ops */

#endif
