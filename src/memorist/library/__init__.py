"""The memory that people install.

    from memorist import Memory, Scope

    anna = Scope("anna")
    with Memory("memory.db") as memory:
        memory.add("Anna is allergic to nuts", anna)
        memory.observe([{"role": "user", "content": "I moved to Lyon last week."}], anna)
        print(memory.context("What may she eat?", anna, max_tokens=500).text)

Nothing is configured, sent anywhere or read from the environment; nothing happens on import.
"""
