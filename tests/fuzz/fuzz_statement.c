/* The privacy statement with texts from outside in every place that takes one: whatever they are,
 * the page has the same tags as with harmless texts, and nothing but these texts between them. */
#include "ledger/statement.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_TEXTS = 8, TEXT_SIZE = 200 };

/* Everything that a statement borrows. */
typedef struct page {
    dure_verify_report report;
    dure_account account;
    dure_statement_terms terms;
    dure_statement_site site;
    dure_statement_facts facts;
    dure_statement_round round;
    dure_statement_act act;
    dure_statement_point points[2];
    dure_statement_curve curve;
    dure_statement statement;
} page;

static void copy(char *to, size_t size, const char *text)
{
    size_t n = strnlen(text, size - 1);
    memcpy(to, text, n);
    to[n] = 0;
}

static void fill(page *p, char texts[N_TEXTS][TEXT_SIZE], bool verified)
{
    memset(p, 0, sizeof *p);
    p->account = (dure_account){.rounds = 2, .steps = 10, .epsilon = 1.5, .delta = 1e-5};
    p->points[0] = (dure_statement_point){1772000000, 1};
    p->points[1] = (dure_statement_point){1772003600, 1.5};
    p->curve = (dure_statement_curve){&p->account, &p->site, 3, p->points, 2};
    p->round = (dure_statement_round){.end = DURE_EVENT_ABORTED, .opened_s = 1772000000};
    p->act = (dure_statement_act){.kind = DURE_EVENT_ROLLED_BACK, .entry = 5};
    p->site.revoked = true;
    p->terms.optimizer = "SGD";
    copy(p->account.name, sizeof p->account.name, texts[0]);
    copy(p->site.name, sizeof p->site.name, texts[0]);
    copy(p->site.organisation, sizeof p->site.organisation, texts[1]);
    copy(p->round.reason, sizeof p->round.reason, texts[2]);
    copy(p->act.reason, sizeof p->act.reason, texts[3]);
    copy(p->terms.architecture, sizeof p->terms.architecture, texts[4]);
    copy(p->report.genesis.federation, sizeof p->report.genesis.federation, texts[5]);
    copy(p->report.lines[0].text, sizeof p->report.lines[0].text, texts[6]);
    p->report.lines[0].outcome = verified ? DURE_OUTCOME_PASSED : DURE_OUTCOME_FAILED;
    p->facts = (dure_statement_facts){
        .file = texts[7], .program = texts[7], .terms = &p->terms, .sites = &p->site, .n_sites = 1};
    p->statement = (dure_statement){.report = &p->report,
                                    .facts = &p->facts,
                                    .verified = verified,
                                    .rounds = &p->round,
                                    .n_rounds = 1,
                                    .acts = &p->act,
                                    .n_acts = 1,
                                    .curves = &p->curve,
                                    .n_curves = 1,
                                    .privacy_mode = DURE_PRIVACY_RECORD};
}

/* The tags of a page, one after the other, without their attributes' numbers mattering: only the
 * characters from '<' to '>' are kept. Aborts at a '<' inside a tag or a '>' outside. */
static size_t tags_of(char *to, const dure_buf *html)
{
    size_t n = 0;
    bool inside = false;
    for (size_t i = 0; i < html->n; i++) {
        char c = (char)html->data[i];
        if ((c == '<' && inside) || (c == '>' && !inside) || c == 0) abort();
        if (c == '<') inside = true;
        if (inside) to[n++] = c;
        if (c == '>') inside = false;
    }
    if (inside) abort();
    return n;
}

static void check(char texts[N_TEXTS][TEXT_SIZE], bool verified)
{
    char harmless[N_TEXTS][TEXT_SIZE];
    page *p = malloc(sizeof *p);
    if (!p) return;
    memset(harmless, 0, sizeof harmless);
    for (size_t i = 0; i < N_TEXTS; i++)
        harmless[i][0] = 'x';
    dure_buf one, two;
    dure_buf_init(&one, DURE_STATEMENT_MAX);
    dure_buf_init(&two, DURE_STATEMENT_MAX);
    fill(p, texts, verified);
    if (dure_statement_html(&one, &p->statement)) abort();
    json_t *json = dure_statement_json(&p->statement);
    json_decref(json); /* NULL where a name is no UTF-8; in a log it is letters and digits */
    fill(p, harmless, verified);
    if (dure_statement_html(&two, &p->statement)) abort();
    /* Style sheet included, in which '>' does not occur. */
    char *a = malloc(one.n), *b = malloc(two.n);
    if (a && b) {
        size_t n = tags_of(a, &one);
        if (n != tags_of(b, &two) || memcmp(a, b, n) != 0) abort();
    }
    free(a);
    free(b);
    free(p);
    dure_buf_fini(&one);
    dure_buf_fini(&two);
}

/* The input is cut at its zero bytes; what is left over goes into the last text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char texts[N_TEXTS][TEXT_SIZE];
    memset(texts, 0, sizeof texts);
    size_t at = 0;
    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t k = 0;
        while (at < n && data[at] != 0) {
            if (k < TEXT_SIZE - 1) texts[i][k++] = (char)data[at];
            at++;
        }
        at++;
    }
    check(texts, true);
    check(texts, false);
    return 0;
}
