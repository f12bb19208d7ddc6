import { render } from 'preact';
render('hello', document.body);
