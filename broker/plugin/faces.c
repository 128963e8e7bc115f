/* SPDX-License-Identifier: Apache-2.0
 * See faces.h. The build defines FACES as one FACE(name) for each face that its options choose. */
#include "broker/plugin/faces.h"

#include <stddef.h>

#define FACE(name) extern const struct protocol_ops name##_protocol;
FACES
#undef FACE

#define FACE(name) {#name, &name##_protocol},
const struct face faces[] = {FACES{NULL, NULL}};
#undef FACE
