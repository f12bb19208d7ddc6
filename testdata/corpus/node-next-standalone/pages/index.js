export default () => 'hi';
