"""From series to value(error); knows no field."""
