"""Reads a ring's rows the way a test wants to see them."""

import numpy as np


def logged(reader):
    """`[(step, {name: value})]` of all rows that can be taken."""
    rows = reader.take_rows()
    found = []
    for index in range(len(rows)):
        names = reader.schema(int(rows.schema[index]))
        values = rows.values(np.array([index]), len(names))[0]
        found.append((int(rows.step[index]), dict(zip(names, values.tolist(), strict=True))))
    return found
