"""From findings to messages: policies, silences, notices, all decided in the transaction that commits what caused them."""
