/* A libnvidia-ml.so.1 that plays a script: the file FAKE_NVML holds lines "card key value", read anew at every call.
   An absent key is "not supported"; key "lost" makes every call of that card fail as a lost GPU; "hang"/"crash" on card -1 do what they say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, TIMEOUT = 10, LOST = 15 };
typedef struct { int index; } Card;
static Card cards[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};

static int get(int card, const char *key, unsigned long long *value)
{
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    char name[64];
    int number, found = 0;
    unsigned long long read;
    while (file && fscanf(file, "%d %63s %llu", &number, name, &read) == 3)
        if (number == card && !strcmp(name, key)) {
            *value = read;
            found = 1;
        }
    if (file)
        fclose(file);
    return found;
}

static int value(Card *card, const char *key, unsigned long long *out)
{
    unsigned long long ignored;
    if (get(card->index, "lost", &ignored))
        return LOST;
    return get(card->index, key, out) ? OK : NOT_SUPPORTED;
}

static int small(Card *card, const char *key, unsigned int *out)
{
    unsigned long long read = 0;
    int status = value(card, key, &read);
    *out = (unsigned int)read;
    return status;
}

int nvmlInitWithFlags(unsigned int flags)
{
    unsigned long long read;
    (void)flags;
    if (get(-1, "hang", &read))
        sleep((unsigned int)read);
    if (get(-1, "crash", &read))
        abort();
    return get(-1, "init", &read) ? (int)read : OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int status) { return status == LOST ? "GPU is lost" : "fake error"; }
int nvmlDeviceGetCount_v2(unsigned int *count)
{
    unsigned long long read = 0;
    get(-1, "cards", &read);
    *count = (unsigned int)read;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Card **card) { *card = &cards[index]; return OK; }
int nvmlDeviceGetUUID(Card *card, char *text, unsigned int length) { snprintf(text, length, "GPU-fake-%d", card->index); return OK; }
int nvmlDeviceGetUtilizationRates(Card *card, unsigned int *rates) { rates[1] = 0; return small(card, "utilization", &rates[0]); }
int nvmlDeviceGetMemoryInfo(Card *card, unsigned long long *memory)
{
    memory[0] = 80ULL << 30;
    return value(card, "memory_used", &memory[2]);
}
int nvmlDeviceGetTemperature(Card *card, int sensor, unsigned int *out) { (void)sensor; return small(card, "temperature", out); }
int nvmlDeviceGetPowerUsage(Card *card, unsigned int *out) { return small(card, "power", out); }
int nvmlDeviceGetClockInfo(Card *card, int type, unsigned int *out) { return small(card, type == 1 ? "sm_clock" : "memory_clock", out); }
int nvmlDeviceGetMaxClockInfo(Card *card, int type, unsigned int *out) { (void)type; return small(card, "sm_clock_max", out); }
int nvmlDeviceGetCurrentClocksEventReasons(Card *card, unsigned long long *out) { return value(card, "throttle", out); }
int nvmlDeviceGetTotalEccErrors(Card *card, int type, int counter, unsigned long long *out)
{
    (void)counter;
    return value(card, type == 0 ? "ecc_corrected" : "ecc_uncorrected", out);
}
int nvmlDeviceGetRemappedRows(Card *card, unsigned int *corrected, unsigned int *uncorrected, unsigned int *pending, unsigned int *failed)
{
    *uncorrected = *pending = *failed = 0;
    return small(card, "remapped", corrected);
}
int nvmlDeviceGetPcieReplayCounter(Card *card, unsigned int *out) { return small(card, "replays", out); }
int nvmlDeviceGetPcieThroughput(Card *card, int counter, unsigned int *out) { return small(card, counter == 0 ? "pcie_transmit" : "pcie_receive", out); }
int nvmlDeviceGetNvLinkErrorCounter(Card *card, unsigned int link, int counter, unsigned long long *out)
{
    (void)counter;
    return link < 2 ? value(card, "nvlink_errors", out) : INVALID;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Card *card, unsigned int *count, void *out) { (void)card; (void)out; *count = 0; return OK; }
int nvmlEventSetCreate(void **set) { *set = cards; return OK; }
int nvmlEventSetFree(void *set) { (void)set; return OK; }
int nvmlDeviceRegisterEvents(Card *card, unsigned long long types, void *set) { (void)card; (void)types; (void)set; return OK; }

typedef struct { Card *card; unsigned long long type, data; unsigned int instance[2]; } EventData;
int nvmlEventSetWait_v2(void *set, EventData *event, unsigned int timeout)
{
    static unsigned long long told = 0;
    unsigned long long count = 0, xid = 0;
    (void)set;
    (void)timeout;
    /* "xid_count": how many times the card has raised "xid" since the driver was loaded */
    for (int index = 0; index < 8; index++)
        if (get(index, "xid", &xid) && get(index, "xid_count", &count) && told < count) {
            told++;
            *event = (EventData){&cards[index], 8, xid, {0, 0}};
            return OK;
        }
    return TIMEOUT;
}
