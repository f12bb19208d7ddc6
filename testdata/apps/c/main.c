#include <stdio.h>

#include "count.h"

int main(void)
{
    printf("%lu words\n", count_words(getchar));
    return 0;
}
