/* trials: certificates, keys and CAs are read by those who will use them while the configuration is loaded, so that `check`
 * finds what `serve` would, and names its place. */
#ifndef MEOWBRIDGE_TRIALS_H
#define MEOWBRIDGE_TRIALS_H

#include "meowbridge/config.h"

extern const struct config_trials config_trials;

#endif
