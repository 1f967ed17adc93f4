/* mqtt_guard: a failed assertion of libmosquitto ends a connection and not the process. */
#ifndef MEOWBRIDGE_MQTT_GUARD_H
#define MEOWBRIDGE_MQTT_GUARD_H

#include <stdbool.h>

struct mosquitto;

/* mosquitto_loop_read(library, 1). *failed becomes true if an assertion failed: then nothing may be done with the library's
 * client any more but mosquitto_destroy, and what the broker sent is to blame. */
int mqtt_guard_loop_read(struct mosquitto *library, bool *failed);

#endif
