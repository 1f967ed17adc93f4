#include "meowbridge/rfc3339.h"

#include <stddef.h>

/* Two digits at s.data[at], or -1. */
static int two_digits(struct slice s, size_t at)
{
    if (at + 2 > s.size || s.data[at] < '0' || s.data[at] > '9' || s.data[at + 1] < '0' || s.data[at + 1] > '9') {
        return -1;
    }
    return (s.data[at] - '0') * 10 + (s.data[at + 1] - '0');
}

static bool has_char(struct slice s, size_t at, char c)
{
    return at < s.size && s.data[at] == c;
}

static int days_in(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

/* RFC 3339 time-offset, with nothing behind it: "Z", "z", "+hh:mm", "-hh:mm". */
static bool read_offset(struct slice s, size_t at, int *minutes)
{
    *minutes = 0;
    if (has_char(s, at, 'Z') || has_char(s, at, 'z')) {
        return at + 1 == s.size;
    }
    int hour = two_digits(s, at + 1), minute = two_digits(s, at + 4);
    *minutes = (hour * 60 + minute) * (has_char(s, at, '-') ? -1 : 1);
    return (has_char(s, at, '+') || has_char(s, at, '-')) && has_char(s, at + 3, ':') && hour >= 0 && hour <= 23 &&
           minute >= 0 && minute <= 59 && at + 6 == s.size;
}

/* A leap second ends the last minute of a month in UTC; which months have one cannot be known beforehand. day of a month of
 * so many days and minute of the day are local; east of Greenwich that minute can be one of the next month's first day. */
static bool may_leap(int day, int days, int minute, int offset)
{
    int utc = minute - offset;
    return (utc == 24 * 60 - 1 && day == days) || (utc == -1 && day == 1);
}

/* Days since 1970-01-01, in the Gregorian calendar without end. */
static int64_t days_since_1970(int year, int month, int day)
{
    int64_t days = 0;
    for (int m = 1; m < month; m++) {
        days += days_in(year, m);
    }
    const int64_t before = year - 1; /* whole years; for year 0, -1: rounds towards minus infinity by the + 400 */
    const int64_t leaps = (before + 400) / 4 - (before + 400) / 100 + (before + 400) / 400 - 97;
    return days + day - 1 + before * 365 + leaps - 719162;
}

/* The digits behind the point at s.data[at], cut to milliseconds. Moves *at behind them; false if there is none. */
static bool read_fraction(struct slice s, size_t *at, int *milliseconds)
{
    int weight = 100;
    size_t start = ++*at;
    for (; *at < s.size && s.data[*at] >= '0' && s.data[*at] <= '9'; ++*at) {
        *milliseconds += (s.data[*at] - '0') * weight;
        weight /= 10;
    }
    return *at > start;
}

/* RFC 3339, 5.6 and 5.7: date-time with values that the calendar knows. */
bool rfc3339_parse(struct slice s, int64_t *wall_ms)
{
    int century = two_digits(s, 0), of_century = two_digits(s, 2), month = two_digits(s, 5), day = two_digits(s, 8);
    int hour = two_digits(s, 11), minute = two_digits(s, 14), second = two_digits(s, 17);
    if (century < 0 || of_century < 0 || !has_char(s, 4, '-') || month < 1 || month > 12 || !has_char(s, 7, '-')) {
        return false;
    }
    int days = days_in(century * 100 + of_century, month);
    if (day < 1 || day > days || !(has_char(s, 10, 'T') || has_char(s, 10, 't'))) {
        return false;
    }
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 || !has_char(s, 13, ':') ||
        !has_char(s, 16, ':')) {
        return false;
    }
    size_t at = 19;
    int milliseconds = 0, offset;
    if (has_char(s, at, '.') && !read_fraction(s, &at, &milliseconds)) {
        return false;
    }
    if (!read_offset(s, at, &offset) || (second == 60 && !may_leap(day, days, hour * 60 + minute, offset))) {
        return false;
    }
    if (wall_ms) {
        int64_t minutes = days_since_1970(century * 100 + of_century, month, day) * 24 * 60 + hour * 60 + minute - offset;
        *wall_ms = (minutes * 60 + second) * 1000 + milliseconds;
    }
    return true;
}
