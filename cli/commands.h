/* The subcommands of `dure`, one function each, in cmd_<name>.c. argv[0] is the command's name;
 * the result is the exit status: 0 done, 1 failed, 2 usage. */
#pragma once

/* X(name, function, summary): one line a command, in the order --help shows them. */
#define DURE_COMMANDS(X)                                                                           \
    X("adapter", dure_cmd_adapter, "list, promote, roll back, export and merge adapters")          \
    X("data", dure_cmd_data, "check and preview a data file")                                      \
    X("eval", dure_cmd_eval, "loss and right answers of a model on a data file")                   \
    X("generate", dure_cmd_generate, "a model's answer to one prompt")                             \
    X("model", dure_cmd_model, "what a model file holds")                                          \
    X("privacy", dure_cmd_privacy, "plan a privacy budget and see what is spent")                  \
    X("serve", dure_cmd_serve, "an OpenAI-compatible server for a model and its adapters")         \
    X("train", dure_cmd_train, "fine-tune an adapter on local records")

#define DURE_COMMAND_DECLARE(name, function, summary) int function(int argc, char **argv);
DURE_COMMANDS(DURE_COMMAND_DECLARE)
#undef DURE_COMMAND_DECLARE
