#include <ctype.h>
#include <stdio.h>

#include "count.h"

unsigned long count_words(int (*next)(void))
{
    unsigned long words = 0;
    int inside = 0;
    for (int c = next(); c != EOF; c = next()) {
        int letter = !isspace(c);
        words += letter && !inside;
        inside = letter;
    }
    return words;
}
