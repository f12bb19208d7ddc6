unsigned long count_words(int (*next)(void));
