/*
 * Sends mail at a fixed rate, whether or not the server keeps up, and says how long each mail took.
 *
 * Usage: open_loop PORT SESSIONS RATE MESSAGES SIZE
 *
 * Mail i is due at i / RATE seconds after the start. It goes out in a session that is free, at once or as soon as one is; its
 * time is from when it was due to the reply to its text. So a server that stops for a moment makes all mails late that were
 * due meanwhile ("coordinated omission" is avoided). RATE 0: all mails are due at the start; that measures the highest rate.
 *
 * Sessions are opened and greeted (EHLO) before the start. Commands are sent one by one, as smtp-source does.
 * Output: a line with the seconds from the start to the last reply, then the microseconds of each mail, a line each.
 * Exit status 1 with a reason: a reply that was not positive, a connection that was closed, or no end in sight.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Seconds that the mails may take longer than their rate says. */
#define GRACE 20
#define EVENTS 256

enum step { GREETING, EHLO, FREE, MAIL, RCPT, DATA, TEXT, QUIT };

struct session {
    int fd;
    enum step step;
    long mail;     /* its number */
    size_t sent;   /* octets of the text */
    size_t length; /* octets of the reply that are in `reply` */
    char reply[4096];
};

static struct session *sessions;
static long session_count, mail_count, started, finished, ready;
static long *free_sessions, free_count;
static double rate;
static uint64_t begin;
static double *took;
static char *text;
static size_t text_length;
static int poll_fd, timer_fd;

static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("open_loop: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* Nanoseconds of CLOCK_MONOTONIC. */
static uint64_t due(long mail)
{
    return rate > 0 ? begin + (uint64_t)((double)mail / rate * 1e9) : begin;
}

static void watch(struct session *session, bool writing)
{
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = session};

    if (epoll_ctl(poll_fd, EPOLL_CTL_MOD, session->fd, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static void say(struct session *session, enum step step, const char *line)
{
    size_t length = strlen(line);

    session->step = step;
    if (send(session->fd, line, length, MSG_NOSIGNAL) != (ssize_t)length)
        fail("send: %s", strerror(errno));
}

static void send_text(struct session *session)
{
    ssize_t done = send(session->fd, text + session->sent, text_length - session->sent, MSG_NOSIGNAL);

    if (done < 0 && errno != EAGAIN)
        fail("send: %s", strerror(errno));
    bool first = session->sent == 0;
    session->sent += done > 0 ? (size_t)done : 0;
    if (session->sent < text_length && first)
        watch(session, true);
    else if (session->sent == text_length && !first)
        watch(session, false);
}

static void start_mail(struct session *session)
{
    session->mail = started++;
    say(session, MAIL, "MAIL FROM:<a@example.org>\r\n");
}

/* Start what is due, as long as a session is free; then set the timer for the next mail. */
static void start_due(void)
{
    while (started < mail_count && free_count > 0 && due(started) <= now())
        start_mail(&sessions[free_sessions[--free_count]]);
    if (started < mail_count && free_count > 0) {
        uint64_t next = due(started);
        struct itimerspec at = {.it_value = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)}};
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
    }
}

static void be_free(struct session *session)
{
    session->step = FREE;
    free_sessions[free_count++] = session - sessions;
}

/* A whole reply has come. */
static void answered(struct session *session)
{
    char wanted = session->step == DATA ? '3' : '2';

    if (session->reply[0] != wanted)
        fail("refused in step %d: %.100s", (int)session->step, session->reply);
    switch (session->step) {
    case GREETING:
        say(session, EHLO, "EHLO client.example\r\n");
        break;
    case EHLO:
        be_free(session);
        ready++;
        break;
    case MAIL:
        say(session, RCPT, "RCPT TO:<b@example.org>\r\n");
        break;
    case RCPT:
        say(session, DATA, "DATA\r\n");
        break;
    case DATA:
        session->step = TEXT;
        session->sent = 0;
        send_text(session);
        break;
    case TEXT:
        took[session->mail] = (double)(now() - due(session->mail)) / 1e3;
        finished++;
        be_free(session);
        break;
    default:
        fail("a reply that nobody asked for: %.100s", session->reply);
    }
}

static void receive(struct session *session)
{
    ssize_t done = recv(session->fd, session->reply + session->length, sizeof session->reply - 1 - session->length, 0);

    if (done <= 0) {
        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        fail("the connection was closed in step %d", (int)session->step);
    }
    session->length += (size_t)done;
    session->reply[session->length] = 0;
    if (session->length == sizeof session->reply - 1)
        fail("a reply is too long");
    if (session->reply[session->length - 1] != '\n')
        return;
    char *last = session->reply + session->length - 1;
    while (last > session->reply && last[-1] != '\n')
        last--;
    if (session->reply + session->length - last < 4 || last[3] == '-')
        return;
    session->length = 0;
    answered(session);
}

static void handle(int wait)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poll_fd, events, EVENTS, wait);

    for (int at = 0; at < count; at++) {
        struct session *session = events[at].data.ptr;
        uint64_t expired;
        if (session == NULL) {
            if (read(timer_fd, &expired, sizeof expired) < 0 && errno != EAGAIN)
                fail("timer: %s", strerror(errno));
            continue;
        }
        if (events[at].events & EPOLLOUT && session->step == TEXT)
            send_text(session);
        if (events[at].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            receive(session);
    }
}

static void open_session(struct session *session, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = session};
    int yes = 1;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    session->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (session->fd < 0 || connect(session->fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail("connect: %s", strerror(errno));
    setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (fcntl(session->fd, F_SETFL, O_NONBLOCK) != 0)
        fail("fcntl: %s", strerror(errno));
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, session->fd, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static void make_text(size_t size)
{
    static const char header[] = "From: <a@example.org>\r\nTo: <b@example.org>\r\nSubject: bench\r\n\r\n";
    static const char end[] = "\r\n.\r\n";
    size_t length = sizeof header - 1;

    text = malloc(size + sizeof header + sizeof end);
    memcpy(text, header, length);
    for (size_t at = 0; at + 1 < size; at++) {
        bool line_end = at % 80 >= 78 && at - at % 80 + 80 < size;
        text[length++] = line_end ? (at % 80 == 78 ? '\r' : '\n') : 'x';
    }
    memcpy(text + length, end, sizeof end);
    text_length = length + sizeof end - 1;
}

int main(int count, char **arguments)
{
    if (count != 6)
        fail("usage: open_loop PORT SESSIONS RATE MESSAGES SIZE");
    int port = atoi(arguments[1]);
    session_count = atol(arguments[2]);
    rate = atof(arguments[3]);
    mail_count = atol(arguments[4]);
    make_text((size_t)atol(arguments[5]));
    sessions = calloc((size_t)session_count, sizeof *sessions);
    free_sessions = calloc((size_t)session_count, sizeof *free_sessions);
    took = calloc((size_t)mail_count, sizeof *took);
    prctl(PR_SET_TIMERSLACK, 1L); /* nanoseconds: the kernel wakes up late by 50 us otherwise */
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer_fd, &event);
    uint64_t limit = now() + (uint64_t)GRACE * 1000000000u;
    for (long at = 0; at < session_count; at++)
        open_session(&sessions[at], port);
    while (ready < session_count && now() < limit)
        handle(100);
    if (ready < session_count)
        fail("only %ld of %ld sessions were greeted", ready, session_count);
    begin = now();
    limit = due(mail_count) + (uint64_t)GRACE * 1000000000u;
    while (finished < mail_count) {
        start_due();
        handle(100);
        if (now() > limit)
            fail("only %ld of %ld mails were answered", finished, mail_count);
    }
    uint64_t end = now();
    for (long at = 0; at < session_count; at++)
        say(&sessions[at], QUIT, "QUIT\r\n");
    printf("%.6f\n", (double)(end - begin) / 1e9);
    for (long at = 0; at < mail_count; at++)
        printf("%.1f\n", took[at]);
    return 0;
}
