export const name = 'app1';
