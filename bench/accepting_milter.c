/*
 * A milter with the real libmilter that reads each message and accepts it at its end: what a milter costs the daemon,
 * without the time of a filter's own language. Usage: accepting_milter SOCKET
 */

#include <string.h>

#include <libmilter/mfapi.h>

/* As accepting_milter.py: header and body, which are not answered, and the end. */
#define STEPS (SMFIP_NOCONNECT | SMFIP_NOHELO | SMFIP_NOMAIL | SMFIP_NORCPT | SMFIP_NODATA | SMFIP_NOEOH | SMFIP_NOUNKNOWN | \
               SMFIP_NR_HDR | SMFIP_NR_BODY)

static sfsistat negotiate(SMFICTX *context, unsigned long actions, unsigned long steps, unsigned long more, unsigned long rest,
                          unsigned long *our_actions, unsigned long *our_steps, unsigned long *our_more, unsigned long *our_rest)
{
    (void)context, (void)actions, (void)more, (void)rest;
    *our_actions = *our_more = *our_rest = 0;
    *our_steps = steps & STEPS;
    return SMFIS_CONTINUE;
}

static sfsistat header(SMFICTX *context, char *name, char *value)
{
    (void)context, (void)name, (void)value;
    return SMFIS_NOREPLY;
}

static sfsistat body(SMFICTX *context, unsigned char *chunk, size_t size)
{
    (void)context, (void)chunk, (void)size;
    return SMFIS_NOREPLY;
}

static sfsistat end(SMFICTX *context)
{
    (void)context;
    return SMFIS_ACCEPT;
}

int main(int count, char **arguments)
{
    struct smfiDesc filter;

    memset(&filter, 0, sizeof filter);
    filter.xxfi_name = "accepting";
    filter.xxfi_version = SMFI_VERSION;
    filter.xxfi_negotiate = negotiate;
    filter.xxfi_header = header;
    filter.xxfi_body = body;
    filter.xxfi_eom = end;
    if (count != 2 || smfi_setconn(arguments[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS)
        return 1;
    return smfi_main();
}
