package main // orders
