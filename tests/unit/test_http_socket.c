/* http_socket: what libmicrohttpd sees of a parked connection's socket, called as libmicrohttpd does. */
#include "test.h"

#include "../../bridge/ports/http_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct http_socket watched;
static int set, fd, peer;
static char owner; /* stands for libmicrohttpd's connection */

static int set_up(void **state)
{
    (void)state;
    struct error why;
    int ends[2];
    assert_int_equal(http_socket_init(&why), ERR_NONE);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    fd = ends[0];
    peer = ends[1];
    set = epoll_create1(0);
    http_socket_open(&watched, fd, false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close(fd);
    close(peer);
    close(set);
    return 0;
}

static void add(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLET, .data.ptr = &owner};
    assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
}

static void take_out(void)
{
    assert_int_equal(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL), 0);
}

static void park(void)
{
    http_socket_park(&watched);
    take_out();
}

static void unpark(void)
{
    http_socket_unpark(&watched);
}

static void assert_no_event(void)
{
    struct epoll_event event;
    assert_int_equal(epoll_wait(set, &event, 1, 0), 0);
}

static void assert_event(uint32_t events)
{
    struct epoll_event event = {0};
    assert_int_equal(epoll_wait(set, &event, 1, 0), 1);
    assert_ptr_equal(event.data.ptr, &owner);
    assert_int_equal(event.events, events);
}

static void put(const char *text)
{
    assert_int_equal(send(peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void assert_received(const char *text)
{
    char got[100];
    assert_int_equal(recv(fd, got, sizeof got, 0), strlen(text));
    assert_memory_equal(got, text, strlen(text));
}

static void assert_nothing_to_receive(void)
{
    char got[100];
    errno = 0;
    assert_int_equal(recv(fd, got, sizeof got, 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static void a_parked_socket_tells_nothing(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    put("first");
    assert_event(EPOLLIN | EPOLLOUT);
    assert_received("first");
    park();
    put("second");
    assert_no_event();
    assert_no_event();
    unpark();
    assert_received("second"); /* libmicrohttpd tries by itself */
    add();
    assert_no_event();
    put("third");
    assert_event(EPOLLIN | EPOLLOUT);
    http_socket_close(fd);
}

/* The next request comes right behind the answer, and libmicrohttpd adds the socket only once there was nothing to receive. */
static void a_socket_tells_again_from_its_unparking_on(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    for (int i = 0; i < 3; i++) {
        park();
        unpark();
        put("next");
        assert_event(EPOLLIN | EPOLLOUT);
        assert_received("next");
        assert_nothing_to_receive();
        http_socket_park(&watched); /* it was not added, and is not taken out */
        unpark();
    }
    add();
    assert_no_event();
    http_socket_close(fd);
}

static void what_was_not_reported_while_it_was_parked_is_reported_behind(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    park();
    put("unseen"); /* nobody waited meanwhile */
    unpark();
    add();
    assert_event(EPOLLIN | EPOLLOUT);
    assert_received("unseen");
    http_socket_close(fd);
}

static void an_end_is_reported_though_bytes_were_received_meanwhile(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    park();
    put("next");
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    assert_no_event();
    unpark();
    assert_received("next");
    add();
    assert_event(EPOLLIN | EPOLLOUT);
    http_socket_close(fd);
}

static void an_end_that_was_told_before_it_is_added_is_reported_once_more(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    park();
    unpark();
    put("last");
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    assert_event(EPOLLIN | EPOLLOUT);
    assert_received("last");
    add();
    assert_event(EPOLLIN | EPOLLOUT);
    http_socket_close(fd);
}

/* Unlike bytes, libmicrohttpd does not find it out by receiving. */
static void what_is_no_reading_or_writing_is_reported_behind(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    park();
    assert_int_equal(shutdown(peer, SHUT_RDWR), 0);
    assert_no_event();
    watched.has_ended = false; /* that alone would have it reported */
    unpark();
    add();
    assert_event(EPOLLIN | EPOLLOUT | EPOLLHUP);
    http_socket_close(fd);
}

static void a_socket_that_is_closed_before_it_is_added_again_leaves_the_set(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    park();
    unpark();
    http_socket_close(fd);
    put("late");
    assert_no_event();
}

/* No event is made up: each would be a turn of the loop for nothing. */
static void a_parked_socket_without_news_is_added_again_in_silence(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    for (int i = 0; i < 3; i++) {
        put("request");
        assert_event(EPOLLIN | EPOLLOUT);
        assert_received("request");
        park();
        unpark();
        add();
        assert_no_event();
    }
    http_socket_close(fd);
}

static void a_socket_that_is_not_parked_is_taken_out(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    take_out();
    put("out");
    assert_no_event();
    add();
    assert_event(EPOLLIN | EPOLLOUT);
    park();
    unpark();
    add();
    take_out(); /* parking was for once */
    assert_false(watched.is_in_set);
    http_socket_close(fd);
}

static void a_drained_socket_is_not_asked_before_the_kernel_reports_it(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    put("whole");
    assert_event(EPOLLIN | EPOLLOUT);
    assert_received("whole");
    put("later");
    assert_nothing_to_receive(); /* the kernel has it, and was not asked */
    assert_event(EPOLLIN | EPOLLOUT);
    assert_received("later");
    http_socket_close(fd);
}

static void a_socket_whose_buffer_was_filled_is_asked_again(void **state)
{
    (void)state;
    char got[4];
    add();
    assert_event(EPOLLOUT);
    put("12345678");
    assert_event(EPOLLIN | EPOLLOUT);
    assert_int_equal(recv(fd, got, sizeof got, 0), 4);
    assert_int_equal(recv(fd, got, sizeof got, 0), 4);
    assert_nothing_to_receive();
    http_socket_close(fd);
}

static void a_socket_that_is_not_watched_is_always_asked(void **state)
{
    (void)state;
    put("one");
    assert_received("one");
    put("two");
    assert_received("two");
    http_socket_close(fd);
}

static void an_end_that_comes_with_the_last_bytes_is_seen_behind_them(void **state)
{
    (void)state;
    char got[100];
    add();
    assert_event(EPOLLOUT);
    put("last");
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    assert_event(EPOLLIN | EPOLLOUT);
    assert_received("last");
    park();
    unpark();
    add();
    assert_int_equal(recv(fd, got, sizeof got, 0), 0);
    http_socket_close(fd);
}

static void an_end_that_comes_while_it_is_parked_is_reported_behind(void **state)
{
    (void)state;
    char got[100];
    add();
    assert_event(EPOLLOUT);
    put("last");
    assert_event(EPOLLIN | EPOLLOUT);
    assert_received("last");
    park();
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    assert_no_event();
    unpark();
    add();
    assert_event(EPOLLIN | EPOLLOUT);
    assert_int_equal(recv(fd, got, sizeof got, 0), 0);
    http_socket_close(fd);
}

/* The open socket outlives its descriptor where somebody lingers on a copy of that. */
static void a_socket_that_is_closed_while_parked_reports_no_more(void **state)
{
    (void)state;
    add();
    assert_event(EPOLLOUT);
    park();
    int copy = dup(fd);
    http_socket_close(fd);
    assert_int_equal(close(fd), 0);
    put("late");
    assert_no_event();
    fd = copy;
}

static void other_descriptors_and_peeks_pass(void **state)
{
    (void)state;
    char got[10];
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7};
    assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, peer, &event), 0);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    event.data.u64 = 0;
    assert_int_equal(epoll_wait(set, &event, 1, 0), 1);
    assert_int_equal(event.data.u64, 7);
    assert_int_equal(recv(peer, got, sizeof got, 0), 1);
    assert_int_equal(epoll_ctl(set, EPOLL_CTL_DEL, peer, NULL), 0);
    add();
    assert_event(EPOLLOUT);
    put("abc");
    assert_event(EPOLLIN | EPOLLOUT);
    assert_received("abc");
    put("def");
    assert_int_equal(recv(fd, got, sizeof got, MSG_PEEK), 3);
    http_socket_close(fd);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EACH(a_parked_socket_tells_nothing),
        EACH(a_socket_tells_again_from_its_unparking_on),
        EACH(what_was_not_reported_while_it_was_parked_is_reported_behind),
        EACH(an_end_is_reported_though_bytes_were_received_meanwhile),
        EACH(an_end_that_was_told_before_it_is_added_is_reported_once_more),
        EACH(what_is_no_reading_or_writing_is_reported_behind),
        EACH(a_parked_socket_without_news_is_added_again_in_silence),
        EACH(a_socket_that_is_not_parked_is_taken_out),
        EACH(a_drained_socket_is_not_asked_before_the_kernel_reports_it),
        EACH(a_socket_whose_buffer_was_filled_is_asked_again),
        EACH(a_socket_that_is_not_watched_is_always_asked),
        EACH(an_end_that_comes_with_the_last_bytes_is_seen_behind_them),
        EACH(an_end_that_comes_while_it_is_parked_is_reported_behind),
        EACH(a_socket_that_is_closed_while_parked_reports_no_more),
        EACH(a_socket_that_is_closed_before_it_is_added_again_leaves_the_set),
        EACH(other_descriptors_and_peeks_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
