# Writes fifty source files and a main that adds what they return.
{
    echo '#include <stdio.h>'
    i=0
    while [ $i -lt 50 ]; do
        echo "int part$i(void) { return $i; }" > part$i.c
        echo "int part$i(void);"
        i=$((i + 1))
    done
    echo 'int main(void) { int sum = 0;'
    i=0
    while [ $i -lt 50 ]; do
        echo "sum += part$i();"
        i=$((i + 1))
    done
    echo 'printf("%d", sum); puts(""); return 0; }'
} > main.c
