/* bridge: the daemon. Starts everything in order, waits for signals, stops everything in reverse. */
#ifndef MEOWBRIDGE_BRIDGE_H
#define MEOWBRIDGE_BRIDGE_H

/* Runs until SIGTERM or SIGINT; SIGHUP reads the configuration again. config_path NULL: no file. Returns the exit status: 0
 * stopped as asked, 1 failed at run time, 2 the configuration is at fault. */
int bridge_run(const char *config_path);

#endif
