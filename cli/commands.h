/* The subcommands of `dure`, one function each, in cmd_<name>.c. argv[0] is the command's name;
 * the result is the exit status: 0 done, 1 failed, 2 usage. */
#pragma once

/* X(name, function, summary): one line a command, in the order --help shows them. */
#define DURE_COMMANDS(X)                                                                           \
    X("adapter", dure_cmd_adapter, "list, promote, roll back, export and merge adapters")          \
    X("audit", dure_cmd_audit, "export the ledger and verify it without the coordinator")          \
    X("client", dure_cmd_client, "a site's part in a federation: run, or check first")             \
    X("coordinator", dure_cmd_coordinator, "the process that sites connect to")                    \
    X("data", dure_cmd_data, "check and preview a data file")                                      \
    X("demo", dure_cmd_demo, "the whole story on this machine: three sites, one adapter, served")  \
    X("epoch", dure_cmd_epoch, "go on after entries of the federation's log were lost")            \
    X("eval", dure_cmd_eval, "loss and right answers of a model on a data file")                   \
    X("generate", dure_cmd_generate, "a model's answer to one prompt")                             \
    X("init", dure_cmd_init, "make a federation")                                                  \
    X("invite", dure_cmd_invite, "a one-time invitation for a site")                               \
    X("join", dure_cmd_join, "join a federation with an invitation")                               \
    X("model", dure_cmd_model, "what a model file holds")                                          \
    X("privacy", dure_cmd_privacy, "plan a privacy budget and see what is spent")                  \
    X("serve", dure_cmd_serve, "an OpenAI-compatible server for a model and its adapters")         \
    X("site", dure_cmd_site, "list, renew and revoke sites")                                       \
    X("status", dure_cmd_status, "rounds, sites, budgets, what is waited for")                     \
    X("train", dure_cmd_train, "fine-tune an adapter on local records")

#define DURE_COMMAND_DECLARE(name, function, summary) int function(int argc, char **argv);
DURE_COMMANDS(DURE_COMMAND_DECLARE)
#undef DURE_COMMAND_DECLARE
