/* A log that remembers its lines: "WARN message name=value name=value". */
#ifndef FAKE_LOG_H
#define FAKE_LOG_H

void fake_log_reset(void);
int fake_log_count(const char *part); /* lines that hold this text */

#endif
