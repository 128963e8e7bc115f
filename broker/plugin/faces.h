/* SPDX-License-Identifier: Apache-2.0
 *
 * The faces of this program: protocols that are linked into it, besides the native one and those
 * that plugins bring. Each is a folder over broker/net/conn/door.h with one struct protocol_ops
 * `NAME_protocol`. The build fills the list (faces.c); main.c opens the port of a face that is
 * configured (`plugin = NAME kind=face port=N`).
 */
#ifndef SLUICE_PLUGIN_FACES_H
#define SLUICE_PLUGIN_FACES_H

struct protocol_ops; /* broker/net/conn/protocol.h */

struct face {
	const char *name;
	const struct protocol_ops *protocol;
};
extern const struct face faces[]; /* ends with a row without a name */

#endif
