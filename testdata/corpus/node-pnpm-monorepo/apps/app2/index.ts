export const name = 'app2';
